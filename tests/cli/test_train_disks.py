"""A disk that is full, cannot be written or loses the run: one line, and what was good stays."""

import os
import shutil
import signal
import subprocess

import pytest
from commands import num_epochs, wait_until

from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import is_intact

TINY = [
    "--set=model.embed_dim=16",
    "--set=model.joint_dim=16",
    "--set=evaluate.resamples=100",
    "--set=data.cache=false",
    "--batch-size=4",
]


@pytest.fixture
def train(still_path):
    def arguments(run_dir, epochs):
        return ["train", "--train", still_path, "--run-dir", run_dir, *TINY, "--epochs", epochs]

    return arguments


def started(commands, arguments, run_dir):
    """The process of a run that has finished two epochs, and stands still."""
    process = commands.start(*arguments)
    wait_until(lambda: num_epochs(run_dir) >= 2)
    os.kill(process, signal.SIGSTOP)
    return process


def goes_on(commands, run_dir):
    """Return True if a run can be resumed; it is stopped after an epoch more."""
    before = num_epochs(run_dir)
    process = commands.start("train", "--resume", run_dir)
    wait_until(lambda: num_epochs(run_dir) > before)
    os.kill(process, signal.SIGINT)
    return commands.wait().code == 130


def is_one_line(ended, *words):
    return (
        ended.code == 1
        and ended.stderr.count("\n") == 1
        and ended.stderr.startswith("error: ")
        and all(word in ended.stderr for word in words)
    )


@pytest.mark.slow
def test_a_state_that_cannot_be_written_stops_the_run_and_keeps_the_last(commands, train):
    run_dir = commands.folder / "runs" / "limit"
    process = started(commands, train(run_dir, 500), run_dir)
    os.kill(process, signal.SIGKILL)
    commands.wait()
    before = (run_dir / run_folder.LAST).read_bytes()

    ended = commands.run("train", "--resume", run_dir, largest_file=100_000)

    assert is_one_line(ended, "cannot be written any more", f"slrctl train --resume {run_dir}")
    assert (run_dir / run_folder.LAST).read_bytes() == before
    assert goes_on(commands, run_dir)


@pytest.mark.slow
def test_a_folder_that_is_removed_under_the_run_is_said_to_be_gone(commands, train):
    run_dir = commands.folder / "runs" / "gone"
    process = started(commands, train(run_dir, 500), run_dir)
    shutil.rmtree(run_dir)
    os.kill(process, signal.SIGCONT)

    ended = commands.wait()

    assert is_one_line(ended, "removed or replaced while the run wrote to it")
    assert not run_dir.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB: room for a run's files and not for one more state."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or _mount("-t", "tmpfs", "-o", "size=12m", "none", place):
        pytest.skip("only root may mount a file system, and not in every container")
    yield place
    for _ in range(2):  # one test mounts it twice
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)  # noqa: S607


def _mount(*arguments):
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode  # noqa: S607


def test_a_full_disk_stops_the_run_and_keeps_the_last_state(commands, train, small_disk):
    run_dir = small_disk / "run"
    process = started(commands, train(run_dir, 500), run_dir)
    with (small_disk / "filler").open("wb") as filler:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        filler.write(bytes(free))
    os.kill(process, signal.SIGCONT)

    ended = commands.wait()

    assert is_one_line(ended, "No space left on device", "what was saved before is whole")
    assert is_intact(run_dir / run_folder.LAST)
    assert is_intact(run_dir / run_folder.BEST)
    assert not list(run_dir.glob(".*.safetensors"))
    (small_disk / "filler").unlink()
    assert goes_on(commands, run_dir)


def test_a_disk_that_becomes_read_only_stops_the_run(commands, train, small_disk):
    run_dir = small_disk / "run"
    process = started(commands, train(run_dir, 500), run_dir)
    # Its own mount becomes read-only: a whole disk does not while a file is open for writing.
    assert _mount("--bind", small_disk, small_disk) == 0
    assert _mount("-o", "remount,ro,bind", small_disk) == 0
    os.kill(process, signal.SIGCONT)

    ended = commands.wait()

    assert is_one_line(ended, "Read-only file system")
    assert is_intact(run_dir / run_folder.LAST)
    for place in (run_dir, small_disk / "other"):
        other = commands.run(*train(place, 2), "--force")
        assert is_one_line(other, "cannot be written", "choose another --run-dir")
