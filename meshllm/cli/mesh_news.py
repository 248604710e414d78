"""What a person sees of the mesh while a node runs: who is here at first, and then each change, once.

Owns these lines. Doesn't know how they are shown.
"""

from collections.abc import Callable

from meshllm.core.announcement import ServingState
from meshllm.core.ids import NodeId, short
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView

NAMES_SHOWN = 8
_HERE, _GONE, _LEFT = MemberState.ALIVE, MemberState.DEAD, MemberState.LEFT


class MeshNews:
    """Turns the members of successive views into lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Speak by `say`."""
        self._say = say
        self._told: dict[NodeId, str] = {}
        """The last state that was told of each node."""

    def tell(self, view: MeshView) -> None:
        """Say what has changed. A member in doubt is nothing to tell: most are back at once."""
        others = [member for node, member in sorted(view.members.items()) if node != view.me.node]
        changed = [member for member in others if self._is_news(member)]
        if not self._told and changed:
            self._first(changed)
        else:
            for member in changed:
                self._say(_line(member))
        for member in changed:
            self._told[member.announcement.node] = str(member.state)

    def _is_news(self, member: Member) -> bool:
        last, state = self._told.get(member.announcement.node), str(member.state)
        if state == _HERE:
            return last != _HERE
        return state in (_GONE, _LEFT) and last == _HERE

    def _first(self, members: list[Member]) -> None:
        names = [member.announcement.name for member in members]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        models = sorted({model for member in members for model in _ready(member)})
        serving = f"; they serve {', '.join(models[:NAMES_SHOWN])}" if models else ""
        self._say(f"mesh:     joined, with {', '.join(names[:NAMES_SHOWN])}{more}{serving}")


def _line(member: Member) -> str:
    name, state = f"{member.announcement.name} ({short(member.announcement.node)})", str(member.state)
    if state == _HERE:
        models = ", ".join(_ready(member)[:NAMES_SHOWN])
        return f"mesh:     {name} is here{f', serves {models}' if models else ''}"
    if state == _LEFT:
        return f"mesh:     {name} has left"
    return f"mesh:     {name} is not reached any more{f': {member.why}' if member.why else ''}"


def _ready(member: Member) -> list[str]:
    """Return the models that a member answers for now."""
    return [served.model for served in member.announcement.serving if served.state is ServingState.READY]
