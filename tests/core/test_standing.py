"""What membership makes of a node."""

import itertools

from meshllm.core.standing import CHANGES, LIVE, Evidence, MemberState, next_state


def test_every_state_and_evidence_has_an_answer() -> None:
    """What the table leaves out changes nothing."""
    for state, evidence in itertools.product(MemberState, Evidence):
        assert next_state(state, evidence) is CHANGES.get((state, evidence), state)


def test_nothing_but_a_failed_confirmation_kills() -> None:
    """One lost ping, or anybody's word, must not be enough."""
    deadly = {evidence for (state, evidence), after in CHANGES.items() if after is MemberState.DEAD and state in LIVE}

    assert deadly == {Evidence.CONFIRM_FAILED}


def test_who_left_comes_back_by_a_newer_incarnation_only() -> None:
    """A last word that arrives late is no return."""
    after = {evidence: next_state(MemberState.LEFT, evidence) for evidence in Evidence}

    assert [evidence for evidence, state in after.items() if state is not MemberState.LEFT] == [
        Evidence.NEWER_INCARNATION
    ]


def test_no_state_is_a_dead_end() -> None:
    """Whatever is thought of a node can be corrected by itself."""
    for state in MemberState:
        assert next_state(state, Evidence.NEWER_INCARNATION) is MemberState.ALIVE
