"""`slrctl data show` as a user meets it."""

import io
import json
import time
from dataclasses import replace

import pytest
from matplotlib.image import imread
from PIL import Image
from rich.console import Console
from rich.text import Text

from slrctl.cli.console import Display
from slrctl.cli.data.show import play
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.reports.clips import ShownClip


@pytest.fixture
def terminal(monkeypatch):
    """The output to a terminal of 60 x 20 characters in which no time passes."""
    screen, display = io.StringIO(), Display()
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "perf_counter", lambda: sum(slept))
    display.console = Console(
        file=screen, force_terminal=True, width=60, height=20, no_color=False, legacy_windows=False
    )
    monkeypatch.setattr(Console, "encoding", "utf-8")
    return screen, slept, display


def test_a_pipe_gets_a_few_frames_in_plain_letters(run, tiny_path, tiny_dataset):
    result = run("data", "show", tiny_path)

    lines = result.stdout.splitlines()
    clip = tiny_dataset[0]
    assert result.exit_code == 0
    assert lines[0].startswith(f"{clip.gloss}: {clip.clip_id}, {clip.num_frames} frames")
    assert sum(line.startswith("frame ") for line in lines) == 4
    assert "\x1b" not in result.stdout
    assert result.stdout.isascii()
    assert max(map(len, lines)) <= 200


def test_a_terminal_gets_every_frame_once_in_its_time(terminal, tiny_dataset):
    screen, slept, display = terminal
    clip = tiny_dataset[0]

    play(display, ShownClip(clip), 10.0, loop=False)

    shown = Text.from_ansi(screen.getvalue()).plain
    assert all(f"frame {n + 1:>2}/{clip.num_frames}" in shown for n in range(clip.num_frames))
    assert any("\u2801" <= character <= "\u28ff" for character in shown)
    assert sum(slept) == pytest.approx(clip.num_frames / 10)


def test_a_loop_ends_when_interrupted(terminal, tiny_dataset, monkeypatch):
    _, slept, display = terminal

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)

    play(display, ShownClip(tiny_dataset[0]), 10.0, loop=True)

    assert len(slept) == 101


@pytest.mark.parametrize("which", ["3", "id"])
def test_a_clip_is_found_by_its_number_and_by_its_id(run, tiny_path, tiny_dataset, which):
    wanted = tiny_dataset[2].clip_id

    result = run("data", "show", tiny_path, wanted if which == "id" else which, "--json")

    facts = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert {"clip_id", "gloss", "frames", "fps", "left_hand_present", "output"} <= set(facts)
    assert (facts["clip_id"], facts["output"]) == (wanted, None)


def test_an_id_that_is_a_number_goes_before_a_number(run, tmp_path, tiny_dataset):
    clips = [replace(clip, clip_id=str(5 - n)) for n, clip in enumerate(tiny_dataset[:3])]
    write_parquet(clips, tmp_path / "numbers.parquet")

    def shown(which: str) -> str:
        return json.loads(run("data", "show", "numbers.parquet", which, "--json").stdout)["clip_id"]

    assert shown("3") == "3"
    assert shown("1") == "5"


def test_numbers_count_the_clips_of_a_gloss_if_one_is_given(run, tiny_path, tiny_dataset):
    gloss = tiny_dataset.classes[1]
    wanted = [clip.clip_id for clip in tiny_dataset if clip.gloss == gloss][1]

    result = run("data", "show", tiny_path, "2", "--gloss", gloss, "--json")

    assert json.loads(result.stdout)["clip_id"] == wanted


def test_a_gif_and_a_strip_are_written(run, tiny_path, tiny_dataset):
    assert run("data", "show", tiny_path, "--output", "a/clip.gif").exit_code == 0
    assert run("data", "show", tiny_path, "--output", "clip.png").exit_code == 0

    with Image.open("a/clip.gif") as gif:
        assert gif.format == "GIF"
        assert getattr(gif, "n_frames", 1) == tiny_dataset[0].num_frames
    assert imread("clip.png").size
