"""How quickly a model may be used at one host: buckets that fill with time and are emptied by requests and tokens.

Owns the two buckets and the time of grace. Decides for how long a request is too early. Doesn't know what becomes of it
then; `ledger` does. Pure, with the time as an argument.
"""

from meshllm.core.quota_config import Quotas


class Bucket:
    """Fills at a rate up to a capacity. What was taken on credit makes it lower than empty."""

    __slots__ = ("_at_s", "_level")

    def __init__(self) -> None:
        """Be full, whatever the capacity."""
        self._level = float("inf")
        self._at_s = 0.0

    def filled(self, per_s: float, capacity: float, now_s: float) -> float:
        """Return how much is in it by now."""
        passed_s = max(now_s - self._at_s, 0.0)
        self._level = min(self._level + passed_s * per_s, capacity)
        self._at_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        """Take so much, also what is not there."""
        self._level -= amount


class Rate:
    """The buckets of one model."""

    __slots__ = ("_excess_since_s", "_requests", "_tokens")

    def __init__(self) -> None:
        """Start with full ones."""
        self._requests, self._tokens = Bucket(), Bucket()
        self._excess_since_s: float | None = None

    def wait_s(self, quotas: Quotas, now_s: float) -> float:
        """Return for how long one more request is too early; 0 where it is not. One that comes in has to `take`."""
        waits_s, is_full = [0.0], True
        if quotas.max_requests_per_second:
            capacity = quotas.burst_requests or max(quotas.max_requests_per_second, 1.0)
            level = self._requests.filled(quotas.max_requests_per_second, capacity, now_s)
            waits_s.append((1.0 - level) / quotas.max_requests_per_second)
            is_full = level >= capacity
        if quotas.max_tokens_per_second:
            level = self._tokens.filled(quotas.max_tokens_per_second, quotas.max_tokens_per_second, now_s)
            waits_s.append(-level / quotas.max_tokens_per_second)
            is_full = is_full and level >= quotas.max_tokens_per_second
        if is_full:
            self._excess_since_s = None
        return max(waits_s)

    def is_graced(self, quotas: Quotas, now_s: float) -> bool:
        """Tell whether an excess is still forgiven: it is for so long after the first one."""
        if self._excess_since_s is None:
            self._excess_since_s = now_s
        return now_s - self._excess_since_s < quotas.grace_period_sec

    def take(self) -> None:
        """Count a request."""
        self._requests.take(1.0)

    def use(self, tokens: int) -> None:
        """Count the tokens that a request used."""
        self._tokens.take(tokens)
