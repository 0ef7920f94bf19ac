"""Progress off a terminal: lines at growing intervals that say what is done and what is left."""

import sys

import pytest

from gapless.core import progress
from gapless.core.progress import Lines, duration, progress_bar, say, show_progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets; progress is shown in lines."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_mode", "lines")
    return now


def lines(capsys) -> list[str]:
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_short_work_says_nothing(clock, capsys):
    assert list(progress_bar(range(5), what="embed", unit="batch")) == [0, 1, 2, 3, 4]
    assert lines(capsys) == []


def test_long_work_says_how_far_it_is_and_what_is_left(clock, capsys):
    with progress_bar(what="embed", unit="batch", total=1000) as shown:
        clock[0] = 9.9
        shown.update(1)
        assert lines(capsys) == []
        clock[0] = 20.0
        shown.set_postfix({"loss": "2.310"})
        shown.update(199)
        assert lines(capsys) == ["gapless: embed: 200 of 1,000 batches, loss 2.310, 20 s, about 1 min 20 s left"]
        clock[0] = 100.0
        shown.update(800)
    assert lines(capsys) == ["gapless: embed: 1,000 batches in 1 min 40 s, loss 2.310"]


def test_the_lines_of_a_long_job_are_few(clock, capsys):
    with progress_bar(what="train", unit="step", total=36_000) as shown:
        for step in range(36_000):
            clock[0] = step + 1.0
            shown.update(1)
    assert 20 < len(lines(capsys)) < 80


def test_what_an_earlier_call_did_does_not_count_for_the_rate(clock, capsys):
    shown = Lines(None, "train", "step", 100, 50)
    clock[0] = 10.0
    shown.update(10)
    assert lines(capsys) == ["gapless: train: 60 of 100 steps, 10 s, about 40 s left"]


def test_interrupted_work_says_how_far_it_came(clock, capsys):
    def interrupted() -> None:
        with progress_bar(what="embed", unit="batch", total=3) as shown:
            shown.update(1)
            clock[0] = 60.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert lines(capsys) == ["gapless: embed: 1 of 3 batches in 1 min 0 s"]


@pytest.mark.parametrize("mode", ["bar", "off"])
def test_python_and_quiet_commands_show_nothing_off_a_terminal(monkeypatch, capsys, mode):
    monkeypatch.setattr(progress, "_mode", "bar")
    show_progress(mode)
    say("a line")
    assert list(progress_bar(range(3), what="embed", unit="batch")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_unless_it_shall_be_quiet(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_mode", "bar")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress_bar(range(3), what="embed", unit="batch"))
    assert "embed: 100%" in capsys.readouterr().err
    show_progress("off")
    list(progress_bar(range(3), what="embed", unit="batch"))
    assert capsys.readouterr().err == ""


def test_durations_round_to_what_a_person_says():
    assert [duration(value) for value in (0.0, 59.6, 3600)] == ["0 s", "1 min 0 s", "1 h 0 min"]
