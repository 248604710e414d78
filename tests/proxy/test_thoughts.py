"""Where thoughts end, and what stands between them and the text."""

import pytest

from meshllm.proxy.thoughts import Mind, behind_prompt, opens_thoughts


@pytest.mark.parametrize(
    ("prompt", "thoughts", "text", "said"),
    [
        ("p", "", "a", "a"),
        ("p", "hm", "", "<think>\nhm"),
        ("p", "hm\n", "a", "<think>\nhm\n</think>\n\na"),
        ("p<think>\n", "hm", "", "hm"),
        ("p<think>", "hm", "a", "\nhm\n</think>\n\na"),
        ("p<think>\n", "", "a", "a"),
    ],
)
def test_what_was_said_behind_a_prompt_has_the_marks_that_were_not_told(
    prompt: str, thoughts: str, text: str, said: str
) -> None:
    """One that the prompt ends with is not said again."""
    assert behind_prompt(prompt, thoughts, text) == said


def test_a_prompt_opens_thoughts_with_its_last_word() -> None:
    """One that closed them again does not."""
    assert opens_thoughts("<think>\n")
    assert not opens_thoughts("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("size", range(1, 30))
def test_however_words_are_cut_thoughts_and_text_are_the_same(size: int) -> None:
    """A mark may come in pieces, and what only looks like one is a thought."""
    said = " so < </th </thin\n\n</think>\n \nA </think> b\n"
    mind = Mind(is_thinking=True)

    fed = [mind.feed(said[at : at + size]) for at in range(0, len(said), size)]

    assert "".join(thoughts for thoughts, _ in fed) == " so < </th </thin"
    assert "".join(text for _, text in fed) == "A </think> b\n"
    assert not mind.is_thinking


def test_thoughts_that_just_end_are_told_to_their_end() -> None:
    """What looked like a mark was none; blanks at the end are nobody's."""
    mind = Mind(is_thinking=True)

    first, last = mind.feed("so </think"), mind.feed("\n", is_last=True)

    assert (first, last) == (("so", ""), (" </think", ""))


def test_text_is_text_from_its_first_word() -> None:
    """Blanks and marks in it belong to it."""
    assert Mind(is_thinking=False).feed("\n</think> a") == ("", "\n</think> a")
