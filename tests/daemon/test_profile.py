"""What takes how long, by phase."""

from meshllm.core.events import TrafficMeasured, Woke
from meshllm.core.ids import ModelId
from meshllm.daemon.profile import CARRY_OUT, DECIDE, FIRST_TOKEN, Profile


def test_phases_are_counted_by_event_and_by_model() -> None:
    """Deciding, carrying out, and the first tokens that the front door reports."""
    profile = Profile()

    profile.consumed(Woke(), 1e-5, 2e-5)
    profile.consumed(TrafficMeasured(finished=(), first_tokens=((ModelId("m"), ((3, 4),)),)), 1e-5, 0.0)
    found = {(one.phase, one.name): sum(one.counts) for one in profile.histograms()}

    assert found == {
        (DECIDE, "Woke"): 1, (CARRY_OUT, "Woke"): 1, (DECIDE, "TrafficMeasured"): 1,
        (CARRY_OUT, "TrafficMeasured"): 1, (FIRST_TOKEN, "m"): 4,
    }  # fmt: skip
