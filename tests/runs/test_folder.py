"""The folder of a run: never overwritten by mistake, locked, found and read back."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.runs import folder as run_folder
from slrctl.runs.folder import (
    check_run_dir,
    free_run_dir,
    holding,
    is_held,
    newest_run,
    read_environment,
    read_fingerprints,
    read_metrics,
    read_settings,
    read_summary,
)
from slrctl.settings import Settings

READERS = {
    run_folder.SETTINGS: read_settings,
    run_folder.ENVIRONMENT: read_environment,
    run_folder.SUMMARY: read_summary,
    run_folder.METRICS: read_metrics,
}


@pytest.fixture
def run_dir(tmp_path, tiny_settings):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    run_folder.start_run_dir(folder, tiny_settings, {"cores": 2})
    return folder


SETTINGS = Settings.layered(
    {
        "data": {
            "train": 'C:\\clips "1"\n\x7f#ü\U0001f44b.csv',
            "frame_size": [640, 480],
            "train_signers": ["ann", "b, c"],
        },
        "train": {"learning_rate": 1e-8, "weight_decay": 3e16},
    }
)


@pytest.mark.parametrize("settings", [Settings(), SETTINGS], ids=["default", "of every kind"])
def test_settings_come_back_as_they_were_resolved(tmp_path, settings):
    run_folder.start_run_dir(tmp_path, settings, {})

    assert Settings.layered(read_settings(tmp_path)) == settings


def test_the_newest_run_is_the_one_whose_best_was_written_last(tmp_path):
    with pytest.raises(SlrctlError, match="slrctl train"):
        newest_run(tmp_path)
    for name, time_ns in (("one", 10), ("two", 30), ("three", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / run_folder.BEST).touch()
        os.utime(tmp_path / name / run_folder.BEST, ns=(1, time_ns))

    assert newest_run(tmp_path) == tmp_path / "two"


def test_nothing_is_overwritten_but_a_run_with_force(run_dir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")

    for folder, force in ((run_dir, False), (tmp_path / "mine", True)):
        with pytest.raises(UsageError, match=str(folder)):
            check_run_dir(folder, force=force)

    check_run_dir(run_dir, force=True)


def test_starting_again_removes_the_files_of_the_last_run(run_dir, tiny_settings):
    for name in (run_folder.METRICS, run_folder.BEST, ".best.0123abcd.safetensors"):
        (run_dir / name).write_text("{}\n")
    (run_dir / "notes.txt").write_text("mine")

    run_folder.start_run_dir(run_dir, tiny_settings, {"cores": 8})

    assert sorted(path.name for path in run_dir.iterdir()) == [
        run_folder.ENVIRONMENT,
        "notes.txt",
        run_folder.SETTINGS,
    ]
    assert json.loads((run_dir / run_folder.ENVIRONMENT).read_text()) == {"cores": 8}


def test_names_that_are_taken_are_numbered(tmp_path):
    (tmp_path / "demo").mkdir()

    assert free_run_dir(tmp_path, "demo") == tmp_path / "demo-2"
    assert free_run_dir(tmp_path, "demo") == tmp_path / "demo-3"  # the one before is taken now
    assert free_run_dir(tmp_path, "other") == tmp_path / "other"


HOLD = """
import sys
from pathlib import Path
from slrctl.runs.folder import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the run in `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_has_one_writer_and_its_lock_ends_with_a_killed_process(tmp_path, holder):
    run_dir = tmp_path / "run"

    assert is_held(run_dir)
    with (
        pytest.raises(SlrctlError, match="another process is writing to this run"),
        holding(run_dir),
    ):
        pytest.fail("two processes hold one run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert not is_held(run_dir)
    with holding(run_dir) as lock:
        lock.check()


def test_a_run_that_ends_leaves_no_lock(tmp_path):
    with holding(tmp_path / "run"):
        assert is_held(tmp_path / "run")

    assert not is_held(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []


def test_two_that_ask_at_once_do_not_take_one_another_for_a_writer(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asking = FileLock(run_dir / run_folder.LOCK, thread_local=False)
    asking.acquire()
    threading.Timer(0.1, asking.release).start()

    assert is_held(run_dir, timeout=0)
    assert not is_held(run_dir)


def test_a_folder_that_was_made_anew_is_not_the_one_that_was_locked(tmp_path):
    with holding(tmp_path / "run") as lock:
        (tmp_path / "run").rename(tmp_path / "old")
        with holding(tmp_path / "run") as new:
            new.check()
            with pytest.raises(SlrctlError, match="removed or replaced"):
                lock.check()
        assert os.listdir(tmp_path / "run") == []


DAMAGED = {
    "deep": b"[" * 100_000,
    "text": b"not at all",
    "bytes": b"\xff\xfe",
    "list": b"[1]",
    "nan": b'{"a": NaN}',
}


@pytest.mark.parametrize(
    ("name", "damage"),
    # To TOML, [1] is a table named 1.
    [(name, damage) for name in READERS for damage in DAMAGED if name[-4:] + damage != "tomllist"],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, damage):
    (tmp_path / name).write_bytes(DAMAGED[damage])

    with pytest.raises(DataError) as caught:
        READERS[name](tmp_path)

    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_instead_of_a_file_of_a_run_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)

    with pytest.raises(DataError, match="and no file"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("data", ["{}", '{"data": 3}', '{"data": {"train": 3}}'])
def test_an_environment_without_fingerprints_is_damaged(tmp_path, data):
    (tmp_path / run_folder.ENVIRONMENT).write_text(data)

    with pytest.raises(DataError, match=run_folder.ENVIRONMENT):
        read_fingerprints(tmp_path)


@pytest.mark.parametrize(
    "lines", ['{"epoch": 2}', "{}", '{"epoch": 1, "val_loss": "low"}', '{"epoch": 1}\n\n']
)
def test_metrics_are_a_line_of_numbers_for_each_epoch(tmp_path, lines):
    (tmp_path / run_folder.METRICS).write_text(lines)

    with pytest.raises(DataError, match="damaged"):
        read_metrics(tmp_path)
