"""How long an engine elsewhere may stand still before a request that waits for its first byte leaves it.

Owns the arithmetic alone. Decides from what is expected of the host: how long it would read the prompt, and how soon
its first bytes came lately. Doesn't know who else has the model, nor how stillness is seen; pure.
"""

from meshllm.core import limits


def patience_s(reading_s: float, seen_s: float | None) -> float:
    """Return the seconds, from those that reading the prompt should take and those until first bytes came lately.

    An engine shows no progress within a batch, so a long prompt may look still for long. Where no first byte was seen
    yet the expectation is a guess, which may lengthen the usual time and never shortens it.
    """
    least_s = limits.FIRST_BYTE_S if seen_s is None else min(limits.FIRST_BYTE_LEAST_S, limits.FIRST_BYTE_S)
    wanted_s = limits.FIRST_BYTE_TIMES * max(reading_s, seen_s or 0.0)
    return min(max(least_s, wanted_s), max(limits.FIRST_BYTE_MOST_S, limits.FIRST_BYTE_S))
