"""How patient membership is: every duration of the failure detector, with presets.

Owns the numbers. Decides nothing. The evidence behind them is in docs/decisions and in `scripts/simulate`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberTimes:
    """Durations in seconds. The defaults are those for any network."""

    probe_interval_s: float = 5.0
    """A member that was silent this long (±10 %) is pinged."""
    probe_timeout_s: float = 5.0
    """A ping without an answer for this long makes a suspect."""
    confirm_s: float = 5.0
    """A suspect that nobody reaches within this is dead."""
    refused_s: float = 2.0
    """The same, where the member's own machine says that nobody listens there."""
    push_s: float = 0.05
    """Changes within this are told together."""
    settle_s: float = 0.4
    """After news, summaries are compared with a few members this soon, to find whom the news missed."""
    exchange_s: float = 15.0
    """How often (±10 %) summaries are compared with a few members at rest."""
    redial_s: float = 5.0
    """How often a lost member is dialled in the first minute, and at least one of all lost ones after it."""
    redial_slow_s: float = 30.0
    """How often each is dialled after that."""
    stray_s: float = 30.0
    """In a large mesh: how often a member without a connection is looked up, just to see."""
    soft_s: float = 5.0
    """Changes of load and free memory are told at most this often."""


def wan() -> MemberTimes:
    """Return patience for any network: 20 % of packets may be lost without a false death."""
    return MemberTimes()


def lan() -> MemberTimes:
    """Return patience for one site, where answers take milliseconds."""
    return MemberTimes(probe_interval_s=2.0, probe_timeout_s=2.0, confirm_s=3.0, refused_s=1.0)


def loopback() -> MemberTimes:
    """Return patience for tests with all nodes on one machine."""
    return MemberTimes(
        probe_interval_s=0.5, probe_timeout_s=0.5, confirm_s=1.0, refused_s=0.5, push_s=0.02, settle_s=0.1,
        exchange_s=3.0, redial_s=0.5, redial_slow_s=2.0, stray_s=5.0, soft_s=1.0,
    )  # fmt: skip
