"""A run that is killed, interrupted or cut off resumes bit-identically."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from calls import call
from commands import Commands, command_server, num_epochs, wait_until
from run_contents import contents

from slrctl.runs import folder as run_folder
from slrctl.runs.folder import is_held

# Two batches an epoch; saved after each of them.
TINY = [
    "--set=model.embed_dim=16",
    "--set=model.joint_dim=16",
    "--set=evaluate.resamples=100",
    "--set=augment.mirror=0.5",
    "--set=train.save_seconds=0",
    "--cmcl=adaptive",
    "--batch-size=4",
]


@pytest.fixture
def train(still_path):
    """The command line of a run, on clips that lie still."""
    return lambda name, epochs: [
        "train",
        "--train",
        still_path,
        "--name",
        name,
        *TINY,
        "--epochs",
        epochs,
    ]


@pytest.fixture
def reference(commands, train):
    """The contents of an uninterrupted run of so many epochs."""

    def whole(epochs):
        name = f"whole-{epochs}"
        if not (commands.folder / "runs" / name).exists():
            ended = commands.run(*train(name, epochs))
            assert ended.code == 0, ended.stderr
        return contents(commands.folder / "runs" / name)

    return whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_run_and_names_the_command_to_go_on(commands, train, number):
    name = f"stopped-{number}"
    run_dir = commands.folder / "runs" / name
    process = commands.start(*train(name, 60), "--set=train.save_seconds=1000")
    wait_until(lambda: num_epochs(run_dir) >= 1)
    os.kill(process, number)

    ended = commands.wait()

    assert ended.code == 130
    assert f"go on with: slrctl train --resume runs/{name}\n" in ended.stderr
    assert not (run_dir / "summary.json").exists()
    assert not (run_dir / ".lock").exists()


@pytest.mark.slow
def test_an_interrupted_run_is_found_without_its_name_and_saved_in_mid_epoch(
    commands, train, reference
):
    run_dir = commands.folder / "runs" / "unnamed"
    process = commands.start(*train("unnamed", 5))
    wait_until(lambda: num_epochs(run_dir) >= 1)
    os.kill(process, signal.SIGINT)
    stopped = commands.wait()

    assert stopped.code == 130
    assert "go on with: slrctl train --resume runs/unnamed" in stopped.stderr
    ended = commands.run("train", "--resume", "--json")

    assert ended.code == 0, ended.stderr
    assert json.loads(ended.stdout)["run_dir"] == "runs/unnamed"
    assert contents(run_dir) == reference(5)
    (resumed,) = json.loads((run_dir / "environment.json").read_text())["resumed"]
    assert resumed["epochs_behind"] >= 1
    assert resumed["changes"] == []


def test_a_second_signal_ends_the_process_at_once(commands, train):
    run_dir = commands.folder / "runs" / "twice"
    process = commands.start(*train("twice", 200))
    wait_until(lambda: num_epochs(run_dir) >= 1)
    os.kill(process, signal.SIGSTOP)  # so that both arrive before either is handled
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGCONT)
    wait_until(lambda: "once more stops at once" in (commands.folder / "err").read_text())
    os.kill(process, signal.SIGINT)

    # By the signal itself, unless the run was saved just before it came.
    assert commands.wait().code in (-signal.SIGINT, 130)


def test_going_on_with_what_is_no_run_is_refused(commands):
    ended = commands.run("train", "--resume", "runs/never")

    assert ended.code == 1
    assert "runs/never: not a run" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "--epochs", "9"], "--epochs: settled by the run"),
        (["--resume", "--seed", "0", "--no-cross-attention"], "--cross-attention, --seed"),
        (["--resume", "--force"], "--force: settled by the run"),
        (["runs/one"], "add --resume"),
    ],
)
def test_options_that_do_not_go_with_resume_are_refused(run, arguments, message):
    result = run("train", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.slow
def test_two_runs_never_share_a_folder(commands, train):
    run_dir = commands.folder / "runs" / "shared"
    process = commands.start(*train("shared", 500))
    wait_until(lambda: num_epochs(run_dir) >= 1)
    os.kill(process, signal.SIGSTOP)
    try:
        with command_server() as server:
            others = Commands(server, commands.folder)
            forced = others.run(*train("shared", 2), "--force")
            resumed = others.run("train", "--resume", "runs/shared")
    finally:
        os.kill(process, signal.SIGKILL)
        commands.wait()

    for ended in (forced, resumed):
        assert ended.code == 1
        assert "another process is writing to this run" in ended.stderr


def test_a_finished_run_has_nothing_to_go_on_with(commands, reference):
    before = reference(5)

    ended = commands.run("train", "--resume", "runs/whole-5", "--json")

    assert ended.code == 0
    assert "finished already" in ended.stderr
    assert json.loads(ended.stdout)["best_epoch"] >= 1
    assert contents(commands.folder / "runs" / "whole-5") == before


def test_a_resumed_run_stopped_before_it_trains_says_how_to_go_on(tiny_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train", "--train", tiny_path, "--name=one", *TINY, "--epochs=1")
    Path("runs/one", run_folder.SUMMARY).unlink()

    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("slrctl.cli.progress.load_splits", stop)

    result = call("train", "--resume", "runs/one")

    assert result.exit_code == 130
    assert result.stderr == "interrupted; go on with: slrctl train --resume runs/one\n"


def test_a_run_without_its_best_model_is_not_called_finished(commands, train):
    commands.run(*train("robbed", 1))
    best = commands.folder / "runs" / "robbed" / run_folder.BEST
    best.write_bytes(b"cut off")
    damaged = commands.run("train", "--resume", "runs/robbed")
    best.unlink()

    missing = commands.run("train", "--resume", "runs/robbed")

    for ended in (damaged, missing):
        assert ended.code == 3
        assert "its best.safetensors is missing or damaged" in ended.stderr
        assert "finished already" not in ended.stdout


def again(commands, name, arguments):
    """The command that goes on with a run, or starts it where it had not begun."""
    has_begun = (commands.folder / "runs" / name / run_folder.SETTINGS).exists()
    return ["train", "--resume", f"runs/{name}"] if has_begun else arguments


@pytest.mark.slow
def test_a_run_killed_at_touches_of_its_files_resumes_bit_identically(commands, train, reference):
    """Every seventh of them, from the first to the last."""
    expected, kills = reference(2), 0
    while True:
        touch = 1 + 7 * kills
        name = f"touch-{touch}"
        ended = commands.run(*train(name, 2), die_at=touch)
        if ended.code == 0:  # there are no more
            break
        assert ended.code == -signal.SIGKILL, ended.stderr
        kills += 1
        ended = commands.run(*again(commands, name, train(name, 2)))
        assert ended.code == 0, ended.stderr
        assert contents(commands.folder / "runs" / name) == expected, f"killed at touch {touch}"
    assert kills > 15


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "num_kills"), [(1, 25), (2, 15)])
def test_a_run_killed_at_random_moments_resumes_bit_identically(
    commands, train, num_processes, num_kills
):
    """Of two processes one or both are killed; the one that is left ends by itself."""
    # Batches of 3 and 1, so that one process has nothing of the last; and it stops before its end.
    changes = ["--batch-size=3", "--set=train.patience=5"] if num_processes == 2 else []
    num = 40 if changes else 10

    def command(name):
        return [*train(name, num), *changes]

    ends = commands.run_together(num_processes, *command(f"whole-of-{num_processes}"))
    assert {ended.code for ended in ends} == {0}, ends[0].stderr
    expected = contents(commands.folder / "runs" / f"whole-of-{num_processes}")
    assert (len(expected[run_folder.METRICS]) < num) == (num_processes == 2)
    moments, kills, runs = np.random.default_rng(379), 0, 0
    while kills < num_kills:
        runs += 1
        name = f"random-{num_processes}-{runs}"
        run_dir = commands.folder / "runs" / name
        while not (run_dir / run_folder.CURVES).exists():  # the last file of a run
            arguments = again(commands, name, command(name))
            processes = commands.start_together(num_processes, *arguments)
            if kills < num_kills:
                killed = processes
                if moments.uniform() < 0.8:  # else perhaps before they have begun
                    wait_for_its_lock(processes[0], run_dir)
                    killed = [processes, processes[:1], processes[-1:]][moments.integers(3)]
                time.sleep(moments.uniform(0, 0.7))
                for process in killed:
                    with suppress(ProcessLookupError):  # it has ended by itself
                        os.kill(process, signal.SIGKILL)
            ends = commands.wait_together()
            codes = {ended.code for ended in ends}
            assert codes <= {0, -signal.SIGKILL} | ({1} if num_processes == 2 else set()), ends
            kills += -signal.SIGKILL in codes
        assert contents(run_dir) == expected, f"after {kills} kills"


def wait_for_its_lock(process, run_dir):
    """Wait until a process writes to the run, or has ended."""
    wait_until(lambda: is_held(run_dir, timeout=0) or not Path(f"/proc/{process}").exists())
