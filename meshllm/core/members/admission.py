"""May this peer come in, and with which rights: a verdict with its exact reason.

Owns the rules of admission and the patience with networks from which too much fails. Decides both. Doesn't know how a
verdict is carried out; that every signature is good, others have made sure of.
"""

import ipaddress
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from meshllm.core.announcement import Address
from meshllm.core.credentials import CertificateFacts, Claim, TokenRecord
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.limits import (
    ADMISSION_FAILURE_WINDOW_S,
    ADMISSION_FAILURES,
    ADMISSION_NETWORKS,
    ADMISSION_SILENCE_S,
    CERTIFICATE_RENEWAL_SHARE,
)
from meshllm.core.members.tokens import TokenBook
from meshllm.core.rights import Rights

_NETWORK_BITS = {4: 24, 6: 56}
"""What one subscriber usually has: counted together, since addresses within are free to choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A peer may come in."""

    rights: Rights
    issues: bool = False
    """It gets a certificate."""
    uses: TokenId | None = None
    """It joins with this token."""


def judge(
    claim: Claim, *, mine: Rights, book: TokenBook, revoked: Collection[NodeId], now_unix_s: float
) -> Admitted | str:
    """Return with which rights a peer comes in, or the exact reason why it does not.

    `mine` are this node's rights: only an admin takes tokens and issues certificates. A good certificate is enough; a
    token beside it counts only where it gives more, and a bad one does no harm then, because people restart a node
    with the command that they joined by.
    """
    if claim.node in revoked:
        return "node_revoked"
    held, problem = _certificate(claim, revoked)
    token = _token(claim, mine, book, now_unix_s)
    if held is None:
        if isinstance(token, TokenRecord):
            return _joined(token.rights & mine, token)
        return token or problem or "no_credential"
    if isinstance(token, TokenRecord) and token.rights & mine & ~held.rights and held.rights in mine:
        return _joined((token.rights & mine) | held.rights, token)
    return Admitted(rights=held.rights, issues=_may_renew(held, mine) and is_renewal_due(held, now_unix_s))


def is_renewal_due(certificate: CertificateFacts, now_unix_s: float) -> bool:
    """Tell whether a certificate is old enough to be replaced: a member dials an admin anew for it."""
    return now_unix_s >= certificate.renewal_unix_s(CERTIFICATE_RENEWAL_SHARE)


def _certificate(claim: Claim, revoked: Collection[NodeId]) -> tuple[CertificateFacts | None, str]:
    held = claim.certificate
    if held is not None and any(issuer in revoked for issuer in held.issuers):
        return None, "issuer_revoked"
    return held, claim.certificate_problem


def _token(claim: Claim, mine: Rights, book: TokenBook, now_unix_s: float) -> TokenRecord | str:
    if claim.token_proof is None:
        return ""
    if Rights.ADMIN not in mine:
        return "not_an_admin"
    return book.check(claim.token_proof, claim.node, now_unix_s)


def _joined(rights: Rights, token: TokenRecord) -> Admitted | str:
    return Admitted(rights=rights, issues=True, uses=token.token_id) if rights else "token_without_rights"


def _may_renew(held: CertificateFacts, mine: Rights) -> bool:
    return Rights.ADMIN in mine and held.rights in mine


class Failures:
    """How much failed lately, by network: /24 and /56. After ten in a minute nothing is answered for a minute."""

    def __init__(self) -> None:
        """Know of none."""
        self._by_network: dict[str, deque[float]] = {}
        self._silent_until_s: dict[str, float] = {}

    def note(self, address: Address, now_s: float) -> bool:
        """Note a failure. Tell whether silence begins with it."""
        network = network_of(address)
        times = self._by_network.pop(network, None) or deque(maxlen=ADMISSION_FAILURES)
        times.append(now_s)
        self._by_network[network] = times  # the network that failed last is the last one
        if len(self._by_network) > ADMISSION_NETWORKS:
            del self._by_network[next(iter(self._by_network))]
        is_too_much = len(times) == ADMISSION_FAILURES and now_s - times[0] <= ADMISSION_FAILURE_WINDOW_S
        if not is_too_much or self.is_silent(address, now_s):
            return False
        self._silent_until_s = {one: until for one, until in self._silent_until_s.items() if until > now_s}
        self._silent_until_s[network] = now_s + ADMISSION_SILENCE_S
        return True

    def is_silent(self, address: Address, now_s: float) -> bool:
        """Tell whether an address gets no answer."""
        return self._silent_until_s.get(network_of(address), now_s) > now_s


def network_of(address: Address) -> str:
    """Return the network that an address is counted with."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return address.host
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ipaddress.ip_network((ip.packed, _NETWORK_BITS[ip.version]), strict=False))
