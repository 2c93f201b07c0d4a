import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slrctl.cli.console import Display, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07", r"bell\x07"),
        ("two\nlines", r"two\nlines"),
        ("\u202eturned", r"\u202eturned"),
        ("half \ud800", r"half \ud800"),
        ("책 \u0645\u06cc\u200c क्\u200dष é", "책 \u0645\u06cc\u200c क्\u200dष é"),
    ],
)
def test_what_commands_a_terminal_is_written_out_and_nothing_else(text, shown):
    assert visible(text) == shown


def test_no_table_list_or_line_lets_a_strangers_text_through(capsys):
    display = Display()
    evil = "[red]x[/red]\x1b]0;title\x07"

    display.lines(evil)
    display.facts({"gloss": evil})
    display.table(evil, ["a", "b"], [[evil, "1"]])

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert printed.count(r"[red]x[/red]\x1b]0;title\x07") == 4


SLRCTL = Path(sys.executable).with_name("slrctl")
WRITERS = [["--help"], ["--version"], ["train", "--show-settings"]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("buffered", [{"PYTHONUNBUFFERED": "1"}, {}], ids=["unbuffered", ""])
@pytest.mark.parametrize("arguments", [*WRITERS, ["train", "--show-settings", "--json"]])
def test_output_that_cannot_be_written_is_one_line_and_a_failure(arguments, buffered):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | buffered

    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [SLRCTL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )

    assert ended.returncode == 1
    assert ended.stderr.startswith("error: standard output cannot be written (No space left")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", WRITERS)
def test_a_reader_that_leaves_hears_nothing_more(arguments):
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run([SLRCTL, *arguments], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (1, b"")


def test_what_commands_a_terminal_is_an_escape_in_json_too(capsys):
    value = {"gloss": "\x9b31m\u202eturned 책\n"}

    Display(as_json=True).json(value)

    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "\x9b" not in printed
    assert "\u202e" not in printed
    assert "책" in printed


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a shell that can close a stream")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere_and_into_no_file(closed, tmp_path):
    command = f"{SLRCTL} data synth clips.parquet --glosses 13 --repetitions 1 {closed}"

    ended = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    content = (tmp_path / "clips.parquet").read_bytes()
    assert content.startswith(b"PAR1")
    assert content.endswith(b"PAR1")
