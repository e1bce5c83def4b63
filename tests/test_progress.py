"""Progress bars: drawn on a terminal for long work, never elsewhere."""

import io
import re

import pytest

from tl_keras.utils import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """A function that makes a terminal of standard error, on which bars are drawn at once. pytest replaces it before a test begins."""

    def opened():
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setenv("COLUMNS", "100")
    return opened


def test_a_bar_counts_and_has_the_time_left(open_terminal):
    terminal = open_terminal()
    with progress.progress_bar("decoding") as update:
        update(10, 40)
        update(40, 40)
    drawn = terminal.getvalue()
    assert "decoding" in drawn and re.search(r"25%\|.*10/40 \[00:00<00:00, ", drawn)
    assert drawn.rpartition("\r")[0].rpartition("\r")[2].strip() == "", "the bar is cleared at the end"


def test_items_are_passed_on(open_terminal):
    terminal = open_terminal()
    assert list(progress.track(iter("abc"), "letters", unit="letters")) == ["a", "b", "c"]
    assert "letters: 0 letters" in terminal.getvalue()


def test_bytes_have_prefixes(open_terminal):
    terminal = open_terminal()
    with progress.progress_bar("file", unit="B") as update:
        update(2**20, 5 * 2**20)
    assert "1.00M/5.00M [" in terminal.getvalue()


def test_steps_are_shown_when_they_begin(open_terminal):
    terminal = open_terminal()
    with progress.progress_steps(2) as begin:
        begin("convert")
        begin("compare")
    drawn = terminal.getvalue()
    assert "convert:   0%" in drawn and "compare:  50%" in drawn and "| 1/2 [" in drawn


def test_short_work_has_no_bar(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(progress, "DELAY", 60)
    assert list(progress.track(range(1000), "numbers")) == list(range(1000))
    assert terminal.getvalue() == ""


def work():
    with progress.progress_steps(2) as begin:
        begin("convert")
    with progress.progress_bar("decoding") as update:
        update(1, 2)
    return list(progress.track("ab", "letters"))


def test_nothing_is_drawn_where_standard_error_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    assert work() == ["a", "b"]
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_nothing_is_drawn_inside_hidden(open_terminal):
    terminal = open_terminal()
    with progress.hidden():
        with progress.hidden(False):  # an inner block does not show what an outer one hides
            assert work() == ["a", "b"]
    assert terminal.getvalue() == ""
    assert work() and terminal.getvalue()
