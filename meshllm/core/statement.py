"""What this node says of itself, and when it says something else.

Owns the newest own announcement with its incarnation and version. Decides what is worth telling: a
change of meaning at once, a change of load or free memory only now and then, or the mesh would talk of
nothing else. Doesn't know models or peers; `mesh` says what is true, `members` tells it.

Invariant: (incarnation, version) never falls, and two different statements never share it.
"""

from dataclasses import replace

from meshllm.core.announcement import Announcement, Record
from meshllm.core.limits import GIB, STATEMENT_ASKED_S
from meshllm.core.resources import Resources

MEMORY_STEPS = 64
"""Free memory is told in this many steps of the whole."""


class OwnStatement:
    """The newest announcement of this node."""

    def __init__(self, first: Announcement, soft_interval_s: float) -> None:
        """Begin with a first statement."""
        self.record = Record(announcement=first)
        self._soft_interval_s = soft_interval_s
        self._soft_at_s = float("-inf")
        self.soft_due_s: float | None = None
        """When a change of load that was held back may be told."""
        self._patience = 1.0
        self._insisted_s: float | None = None
        """From when on the next statement is made in any case."""
        self._insisted_at_s = float("-inf")

    @property
    def announcement(self) -> Announcement:
        """Return what is said now."""
        return self.record.announcement

    def spread_over(self, members: int) -> None:
        """Tell changes of load less often in a mesh this large, so that what each member hears stays bounded."""
        self._patience = max(1.0, members / 32)

    def renew(self, new: Announcement, now_s: float) -> bool:
        """Take what is true now; tell whether it is worth a new version. Its own version is ignored."""
        old = self.announcement
        if (new.incarnation, new.version, new.left) != (old.incarnation, old.version, old.left):
            new = replace(new, incarnation=old.incarnation, version=old.version, left=old.left)
        is_insisted = self._insisted_s is not None and now_s >= self._insisted_s
        if new == old and not is_insisted:
            self.soft_due_s = self._insisted_s
            return False
        if not is_insisted and _hard(new) == _hard(old):
            due_s = self._soft_at_s + self._soft_interval_s * self._patience
            if now_s < due_s:
                self.soft_due_s = due_s if self._insisted_s is None else min(due_s, self._insisted_s)
                return False
        if is_insisted:
            self._insisted_s, self._insisted_at_s = None, now_s
        self._soft_at_s, self.soft_due_s = now_s, self._insisted_s
        self._say(replace(new, version=old.version + 1))
        return True

    def insist(self, now_s: float) -> None:
        """Have the next statement made in any case: somebody waits for it. Not more often than once a while."""
        if self._insisted_s is None:
            self._insisted_s = max(now_s, self._insisted_at_s + STATEMENT_ASKED_S)

    def outbid(self, incarnation: int) -> None:
        """Refute everything that is said about this node up to an incarnation."""
        old = self.announcement
        self._say(replace(old, incarnation=max(incarnation, old.incarnation) + 1, version=old.version + 1))

    def leave(self) -> None:
        """Say the last word."""
        self._say(replace(self.announcement, version=self.announcement.version + 1, left=True))

    def _say(self, announcement: Announcement) -> None:
        self.record = Record(announcement=announcement)


def _hard(said: Announcement) -> Announcement:
    """Return a statement without what changes all the time."""
    serving = tuple(
        replace(one, busy=0, queued=0, hit_rate=0.0, response_time_s=None, error_rate=None) for one in said.serving
    )
    return replace(
        said, resources=_fixed(said.resources), serving=serving, demand=(), uses=(), quota_uses=(), load=0.0,
        unshared=tuple((model, "") for model, _ in said.unshared),  # the reasons hold numbers of bytes
    )  # fmt: skip


def _fixed(resources: Resources | None) -> Resources | None:
    if resources is None:
        return None
    gpus = tuple(replace(gpu, free_bytes=0) for gpu in resources.gpus)
    return replace(resources, memory_free_bytes=0, disk_free_bytes=0, gpus=gpus)


def coarse(resources: Resources | None) -> Resources | None:
    """Return resources with free memory and disk in steps: what everybody else needs to know of it."""
    if resources is None:
        return None
    gpus = tuple(replace(gpu, free_bytes=_step(gpu.free_bytes, gpu.total_bytes)) for gpu in resources.gpus)
    return replace(
        resources, memory_free_bytes=_step(resources.memory_free_bytes, resources.memory_total_bytes), gpus=gpus,
        disk_free_bytes=resources.disk_free_bytes // GIB * GIB,
    )  # fmt: skip


def _step(free_bytes: int, total_bytes: int) -> int:
    step = max(total_bytes // MEMORY_STEPS, 1)
    return min(free_bytes // step * step, total_bytes) if free_bytes < total_bytes else total_bytes
