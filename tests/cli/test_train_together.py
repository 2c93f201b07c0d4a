"""Runs of several real processes come to what one process comes to, and end together."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import num_epochs, wait_until
from torch.testing import assert_close

from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.runs.checkpoint import load_checkpoint, load_run

# 8 clips an epoch in batches of 6 and of 2, which leaves one of three processes without a clip;
# 10 epochs are 20 steps. 4 clips of validation in batches of 3 and 1.
TINY = [
    "--set=model.embed_dim=16",
    "--set=model.joint_dim=16",
    "--set=model.dropout=0",
    "--set=model.pooling_dropout=0",
    "--set=evaluate.resamples=100",
    "--set=evaluate.batch_size=3",
    "--set=train.diagnostics_every=4",
    "--set=train.learning_rate=1e-3",
    "--set=train.precision=fp32",
    "--batch-size=6",
]
CMCL = ["--cmcl=balanced"]
CYCLE = [*CMCL, "--set=cmcl.consistency=cycle", "--set=cmcl.temporal=true"]
CONTRASTIVE = [*CMCL, "--set=cmcl.alignment=contrastive"]
SCALES = [*CMCL, "--set=cmcl.multi_scale=true"]


@pytest.fixture
def train(still_path):
    """The command line of a run, on clips that lie still."""

    def command(name, *changes, epochs=10):
        given = ["--train", still_path, "--name", name, "--epochs", epochs]
        return ["train", *given, *TINY, *changes]

    return command


@pytest.fixture
def trained(commands, train):
    """The folder of a run of so many processes, made by whoever asks for it first."""

    def run(count, *changes):
        name = f"{count}{''.join(changes)}".replace("--", "-").replace("set=", "")
        run_dir = commands.folder / "runs" / name
        if not run_dir.exists():
            command = train(name, *changes)
            ends = (
                [commands.run(*command)] if count == 1 else commands.run_together(count, *command)
            )
            assert [ended.code for ended in ends] == [0] * count, [ended.stderr for ended in ends]
            assert [(ended.stdout, ended.stderr) for ended in ends[1:]] == [("", "")] * (count - 1)
        return run_dir

    return run


def logits_of(run_dir, clips):
    run = load_run(run_dir)
    dataset = load_dataset(clips)
    (batch,) = evaluation_batches(dataset, run.settings, batch_size=100)
    with torch.no_grad():
        return run.model(batch).logits


def lines_of(run_dir):
    """The metrics of every epoch without times; infinite where there is none."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    times = {"seconds", "clips_per_second"}
    return [
        {name: math.inf if line[name] is None else line[name] for name in line.keys() - times}
        for line in lines
    ]


def assert_same_training(run_dir, expected_dir, clips, largest=1e-6):
    """Weights within the largest difference, logits within 1e-5, every number of every epoch."""
    state, expected = (
        load_checkpoint(path / "last.safetensors") for path in (run_dir, expected_dir)
    )
    weights, its = (
        {
            name: tensor
            for name, tensor in one.tensors.items()
            # A softmax does not see what a key's bias adds to all scores of a row: its gradient is
            # rounding alone, which the optimizer makes a step of full length of.
            if name.startswith(("model.", "loss.")) and not name.endswith("key_projection.bias")
        }
        for one in (state, expected)
    )
    assert state.tensors.keys() == expected.tensors.keys()
    assert_close(weights, its, atol=largest, rtol=0)
    assert_close(logits_of(run_dir, clips), logits_of(expected_dir, clips), atol=1e-5, rtol=0)
    approximately = [pytest.approx(line, rel=1e-4, abs=1e-5) for line in lines_of(expected_dir)]
    assert lines_of(run_dir) == approximately


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "form"), [(2, []), (3, CMCL), (2, CYCLE), (3, CONTRASTIVE), (2, SCALES)]
)
def test_so_many_processes_train_what_one_does_in_every_form(trained, tiny_path, count, form):
    # The optimizer enlarges what rounding leaves of a gradient that is nearly 0. Of 200,000 weights
    # one of the contrastive form was 1.02e-6 off, all others of all forms below 0.8e-6.
    largest = 2e-6 if form is CONTRASTIVE else 1e-6
    assert_same_training(trained(count, *form), trained(1, *form), tiny_path, largest)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_accumulated_gradients_are_those_of_the_whole_batch(trained, tiny_path, count):
    accumulated = trained(count, *CMCL, "--set=train.accumulate=3")

    assert_same_training(accumulated, trained(1, *CMCL), tiny_path)


@pytest.mark.slow
def test_two_processes_draw_the_dropout_of_two_micro_batches(trained, tiny_path):
    dropping = [*CMCL, "--set=model.dropout=0.3"]

    together = trained(2, *dropping)
    accumulated = trained(1, *dropping, "--set=train.accumulate=2")

    assert_same_training(together, accumulated, tiny_path)


@pytest.mark.slow
def test_two_processes_train_what_one_does_in_mixed_precision_too(trained):
    mixed = [*CMCL, "--set=train.precision=bf16"]

    together, alone = lines_of(trained(2, *mixed)), lines_of(trained(1, *mixed))
    exact = lines_of(trained(1, *CMCL))

    losses, expected, other = (
        [line["train_loss"] for line in lines] for lines in (together, alone, exact)
    )
    assert losses == pytest.approx(expected, rel=5e-3)
    assert expected != other  # it was mixed


@pytest.mark.slow
def test_validation_and_test_are_those_of_one_process_to_the_bit(trained):
    # At this rate no weight moves, so that all evaluate the same model.
    still = [*CMCL, "--learning-rate=1e-30"]

    together, expected = trained(2, *still), trained(1, *still)

    for line, wanted in zip(lines_of(together), lines_of(expected), strict=True):
        validation = {k: v for k, v in line.items() if k.startswith("val_")}
        assert validation == {k: v for k, v in wanted.items() if k.startswith("val_")}
    predictions = [(folder / "predictions.parquet").read_bytes() for folder in (together, expected)]
    assert predictions[0] == predictions[1]


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_another_number_goes_on(
    commands, train, trained, tiny_path
):
    run_dir = commands.folder / "runs" / "killed"
    processes = commands.start_together(2, *train("killed", *CMCL, "--set=train.save_seconds=0"))
    wait_until(lambda: num_epochs(run_dir) >= 2)
    os.kill(processes[1], signal.SIGKILL)

    first, killed = commands.wait_together()
    resumed = commands.run("train", "--resume", "runs/killed")

    assert (first.code, killed.code) == (1, -signal.SIGKILL)
    (line,) = first.stderr.splitlines()
    assert "another process of this run ended" in line
    assert line.endswith("slrctl train --resume runs/killed")
    assert resumed.code == 0, resumed.stderr
    assert "processes: 2 before, 1 now" in resumed.stdout
    assert_same_training(run_dir, trained(1, *CMCL), tiny_path)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 2])
def test_a_signal_to_one_process_stops_all_at_one_step_with_everything_saved(
    commands, train, trained, tiny_path, asked
):
    name = f"stopped-{asked}"
    run_dir = commands.folder / "runs" / name
    processes = commands.start_together(3, *train(name, *CMCL, "--set=train.save_seconds=1000"))
    wait_until(lambda: num_epochs(run_dir) >= 2)
    os.kill(processes[asked], signal.SIGTERM)

    ends = commands.wait_together()
    resumed = commands.run_together(2, "train", "--resume", f"runs/{name}")

    assert [ended.code for ended in ends] == [130] * 3
    assert f"go on with: slrctl train --resume runs/{name}\n" in ends[0].stderr
    assert [ended.stderr for ended in ends[1:]] == ["", ""]
    assert [ended.code for ended in resumed] == [0, 0], resumed[0].stderr
    assert_same_training(run_dir, trained(1, *CMCL), tiny_path)


@pytest.mark.slow
def test_two_processes_that_are_told_to_stop_leave_their_validation(commands, train, tiny_dataset):
    name, copies = "told-in-validation", commands.folder / "copies.parquet"
    clips = [
        dataclasses.replace(clip, clip_id=f"{clip.clip_id} {number}")
        for number in range(200)
        for clip in tiny_dataset
    ]
    write_parquet(clips, copies)
    given = [f"--val={copies}", "--set=train.save_seconds=0", "--set=evaluate.batch_size=1"]
    run_dir = commands.folder / "runs" / name
    processes = commands.start_together(2, *train(name, *CMCL, *given, epochs=1))
    # The second and last batch of the epoch: what follows is validation.
    wait_until(lambda: (run_dir / "previous.safetensors").exists())
    for process in processes:
        os.kill(process, signal.SIGTERM)

    ends = commands.wait_together()

    assert [ended.code for ended in ends] == [130] * 2
    assert "interrupted after batch 2 of epoch 1, which is saved" in ends[0].stderr
    assert num_epochs(run_dir) == 0


@pytest.mark.slow
def test_what_all_find_out_is_said_once(commands, train, trained):
    trained(1, *CMCL)
    taken = commands.run_together(2, *train("1-cmcl=balanced", *CMCL))
    missing = commands.run_together(2, "train", "--train", "nowhere.parquet")
    wrong = commands.run_together(2, "train", "--epochs", 0)
    diverged = commands.run_together(2, *train("diverged", "--learning-rate=1e30"))

    for ends, code in ((taken, 2), (missing, missing[0].code), (wrong, 2), (diverged, 4)):
        assert [ended.code for ended in ends] == [code, code]
        assert ends[0].stderr.count("\n") == 1, ends[0].stderr
        assert ends[1].stderr == ""


@pytest.mark.slow
def test_torchrun_starts_it(tiny_path, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    slrctl = ["--no-python", Path(sys.executable).with_name("slrctl"), "train"]
    given = ["--train", tiny_path, "--name", "torchrun", "--epochs", "1", "--json"]

    ended = subprocess.run(
        [*launcher, *map(str, (*slrctl, *given)), *TINY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["epochs"] == 1
    environment = json.loads((tmp_path / "runs" / "torchrun" / "environment.json").read_text())
    assert environment["processes"] == 2
