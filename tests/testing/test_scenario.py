"""Stories as text."""

import pytest

from meshllm.testing.scenario import StoryError, play


def test_output_is_written_below_its_orders() -> None:
    """And what was there before is replaced; comments and empty lines stay."""
    text = "# two nodes\nstart a\nstart b via a\nrun 1\nshow a\n----\nold output\n\n# later\nshow b\n----\n"

    played = play(text)

    assert played.startswith("# two nodes\nstart a\nstart b via a\nrun 1\nshow a\n----\n")
    assert "old output" not in played
    assert "\na: b alive\n\n# later\nshow b\n----\nb: a alive\n" in played
    assert play(played) == played


@pytest.mark.parametrize("line", ["dance", "jump a", "start", "crash nobody", "run soon", "link a"])
def test_a_line_that_means_nothing_is_named(line: str) -> None:
    """Not a traceback somewhere inside."""
    with pytest.raises(StoryError):
        play(f"{line}\n----\n")


def test_every_order_can_be_given() -> None:
    """The list in the head of the module is what there is."""
    played = play(
        "mesh seed=1 delay=5 jitter=2 times=loopback\nstart a with tiny\nstart b via a with tiny\nstart c via a\n"
        "run 2\nloss 0.01\ncut a b\nlink b c loss=0.1 delay=20\ndivide a | b c\nheal\njump b 10\nsleep c\nrun 1\n"
        "wake c\nkill b\nrun 3\nrestart b\nrun 5\nrevoke c\nleave b\nrun 2\ncrash b\nshow\nmodels\n----\n"
    )

    assert "a: b left" in played
    assert "a: tiny at a, host a" in played


def test_every_order_about_serving_can_be_given() -> None:
    """Machines, requests and who serves what are part of the stories."""
    played = play(
        "model big 3\nstart a with big ram=8 vram=4 disk=20 load=1 fetch=1 others=1 asks=big fills fetches\n"
        "start b via a ram=4\nrun 10\nrequest big at b\nrun 5\nbreak big at a\nrun 10\ntraffic big 2 at a\nrun 5\n"
        "traffic off\nhosts\n----\n"
    )

    assert "model ready model=big load_s=3.0" in played
    assert "b: request for big: complete at a, after 0.26 s" in played
    assert "fault=crashed" in played
    assert "\nbig: a (" in played


@pytest.mark.parametrize("line", ["break tiny at a", "request tiny", "model big", "request tiny at nobody"])
def test_a_wrong_line_about_serving_is_named(line: str) -> None:
    """As any other."""
    with pytest.raises(StoryError):
        play(f"start a\n{line}\n----\n")
