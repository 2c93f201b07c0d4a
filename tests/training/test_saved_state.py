"""A run that stops anywhere resumes to the same files, or says what is missing."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from run_contents import contents

from slrctl.errors import DataError, SlrctlError, TrainingDiverged
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import load_checkpoint, load_run, save_checkpoint
from slrctl.settings import Settings
from slrctl.training.loop import EpochReport
from slrctl.training.resume import find_saved_run, newest_interrupted, save_state
from slrctl.training.run import resume_training, run_training
from slrctl.training.state import TrainingState

CHANGES = {
    "cmcl": {"preset": "adaptive", "lambda_consistency": 0.2, "lambda_alignment": 0.1}
    | {"adaptive": True},
    "augment": {"mirror": 0.5, "hand_dropout": 0.2},
    "model": {"num_encoder_layers": 1},
    "train": {"epochs": 3, "save_seconds": 0.0},
}


@pytest.fixture(scope="module")
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), CHANGES)


def stopped_run(settings, splits, run_dir, num_reports):
    """A run that ends, without a word, after some reports."""
    reports = run_training(settings, splits, run_dir)
    for _ in range(num_reports):
        next(reports)
    reports.close()
    return run_dir


@pytest.fixture(scope="module")
def first_epoch(settings, tiny_splits, tmp_path_factory):
    """A run that stopped at the end of its first epoch, for `stopped` to copy."""
    return stopped_run(settings, tiny_splits, tmp_path_factory.mktemp("stopped") / "run", 3)


@pytest.fixture
def stopped(first_epoch, tmp_path):
    return shutil.copytree(first_epoch, tmp_path / "run")


def resumed(path, splits):
    for _ in resume_training(find_saved_run(path), splits):
        pass


@pytest.fixture(scope="module")
def whole(settings, tiny_splits, tmp_path_factory):
    """The contents of a run that nothing has stopped."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    for _ in run_training(settings, tiny_splits, run_dir):
        pass
    return contents(run_dir)


def as_it_is(run_dir):
    pass


def without_any_state(run_dir):
    for name in (run_folder.LAST, run_folder.PREVIOUS):
        (run_dir / name).unlink(missing_ok=True)


def with_the_rest_of_a_killed_writer(run_dir):
    (run_dir / ".last.0123abcd.safetensors").write_bytes(b"half")
    with (run_dir / run_folder.METRICS).open("a") as file:
        file.write('{"epoch": 2, "is_be')


# Two batches and the end of an epoch each; then the evaluation.
@pytest.mark.parametrize(
    ("num_reports", "change"),
    [
        *((num_reports, as_it_is) for num_reports in (1, 2, 3, 9)),
        (3, without_any_state),
        (4, with_the_rest_of_a_killed_writer),
    ],
)
def test_a_run_that_stopped_anywhere_resumes_to_the_same_files(
    settings, tiny_splits, tmp_path, whole, num_reports, change
):
    run_dir = stopped_run(settings, tiny_splits, tmp_path / "run", num_reports)
    change(run_dir)

    resumed(run_dir, tiny_splits)

    assert contents(run_dir) == whole
    environment = json.loads((run_dir / run_folder.ENVIRONMENT).read_text())
    assert [entry["changes"] for entry in environment["resumed"]] == [[]]


def test_a_run_goes_on_from_its_state_before_the_last(settings, tiny_splits, tmp_path, whole):
    run_dir = stopped_run(settings, tiny_splits, tmp_path / "run", 6)
    last, previous = run_dir / run_folder.LAST, run_dir / run_folder.PREVIOUS
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)

    with pytest.raises(DataError, match=f"damaged .* slrctl train --resume {previous}"):
        find_saved_run(run_dir)
    resumed(previous, tiny_splits)

    assert contents(run_dir) == whole


def without_a_line(run_dir):
    path = run_dir / run_folder.METRICS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def with_a_pipe_for_metrics(run_dir):
    (run_dir / run_folder.METRICS).unlink()
    os.mkfifo(run_dir / run_folder.METRICS)


def with_other_settings(run_dir):
    path = run_dir / run_folder.SETTINGS
    path.write_text(path.read_text().replace("epochs = 3", "epochs = 5"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_line, "a line for each of the 1 epochs"),
        (with_a_pipe_for_metrics, "is no file any more"),
        (with_other_settings, "under other settings"),
        (lambda run_dir: (run_dir / run_folder.ENVIRONMENT).write_text("[]"), r"environment\.json"),
    ],
)
def test_a_run_that_was_changed_in_between_is_refused(stopped, tiny_splits, change, message):
    change(stopped)

    with pytest.raises(DataError, match=message):
        resumed(stopped, tiny_splits)


def test_other_clips_and_a_model_without_its_state_are_refused(stopped, tiny_splits):
    fewer = replace(tiny_splits, train=tiny_splits.train.with_clips(tiny_splits.train[:-1]))

    with pytest.raises(DataError, match="the train clips are not those"):
        resumed(stopped, fewer)
    with pytest.raises(DataError, match="no state of a training"):
        find_saved_run(stopped / run_folder.BEST)


def test_the_newest_run_that_is_neither_finished_nor_running_is_found(
    settings, tiny_splits, tmp_path, whole
):
    with pytest.raises(SlrctlError, match="no interrupted run"):
        newest_interrupted(tmp_path)
    stopped_run(settings, tiny_splits, tmp_path / "older", 1)
    stopped_run(settings, tiny_splits, tmp_path / "newer", 1)
    running = run_training(settings, tiny_splits, tmp_path / "running")
    next(running)

    assert newest_interrupted(tmp_path) == tmp_path / "newer"
    running.close()
    assert newest_interrupted(tmp_path) == tmp_path / "running"


def test_a_training_that_diverges_names_its_last_good_checkpoint(
    settings, tiny_splits, tmp_path, monkeypatch
):
    run_dir, seen = tmp_path / "run", []
    monkeypatch.setattr(
        "slrctl.training.loop.learning_rate",
        lambda settings, epoch, share: 1e30 if epoch == 1 else 1e-3,
    )

    with pytest.raises(TrainingDiverged) as caught:
        seen.extend(run_training(settings, tiny_splits, run_dir))

    message = str(caught.value)
    assert "epoch 2, step 2: the classification term is nan" in message
    assert f"the last good checkpoint is {run_dir / run_folder.BEST} (epoch 1)" in message
    assert len([report for report in seen if isinstance(report, EpochReport)]) == 1
    assert find_saved_run(run_dir).progress.epoch == 1
    load_run(run_dir)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_never_replaces_a_good_one(settings, tiny_splits, tmp_path, bad):
    state = TrainingState.initial(settings, tiny_splits.train.classes, torch.device("cpu"))
    save_state(state, tmp_path)
    before = (tmp_path / run_folder.LAST).read_bytes()
    with torch.no_grad():
        state.model.classifier.bias[0] = bad

    save_state(state, tmp_path)

    assert (tmp_path / run_folder.LAST).read_bytes() == before


def edited(path, change):
    """Put what somebody may have made of a state in its place, its checksum put right."""
    saved = load_checkpoint(path)
    tensors, progress = dict(saved.tensors), dict(saved.progress)
    change(tensors, progress)
    save_checkpoint(path, tensors, saved.settings, saved.classes, progress)


def first_moment(tensors):
    return next(name for name in tensors if name.startswith("optimizer.exp_avg."))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, progress: tensors.update({first_moment(tensors): torch.zeros(3)}),
        lambda tensors, progress: tensors.update(
            {first_moment(tensors): tensors[first_moment(tensors)].to(torch.int8)}
        ),
        lambda tensors, progress: progress.update(epoch="1"),
        lambda tensors, progress: progress.update(epoch=1.5),
        lambda tensors, progress: progress.update(epoch=10**30),
        lambda tensors, progress: progress.update(epoch=99),
        lambda tensors, progress: progress.update(step=-3),
        lambda tensors, progress: progress.update(
            step=99, totals={"sums": {"loss": 1.0}, "counts": {"loss": 4.0}}
        ),
        lambda tensors, progress: progress.update(step=2),
        lambda tensors, progress: progress.update(best_epoch="1"),
        lambda tensors, progress: progress.update(best_accuracy="x"),
        lambda tensors, progress: progress.update(totals={"sums": "a", "counts": {}}),
        lambda tensors, progress: progress.update(telepathy=1),
        lambda tensors, progress: progress.pop("seconds"),
    ],
)
def test_a_state_that_somebody_edited_is_refused(stopped, tiny_splits, change):
    edited(stopped / run_folder.LAST, change)

    with pytest.raises(DataError, match=r"last\.safetensors"):
        resumed(stopped, tiny_splits)


@pytest.mark.parametrize("name", [".lock", run_folder.METRICS])
def test_nothing_is_written_through_a_link_in_a_runs_folder(settings, tiny_splits, tmp_path, name):
    (tmp_path / "precious").write_text("a thesis")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    if name == ".lock":
        (run_dir / name).symlink_to("../precious")
    reports = run_training(settings, tiny_splits, run_dir)
    if name != ".lock":
        next(reports)
        (run_dir / name).symlink_to("../precious")

    with pytest.raises(SlrctlError, match="cannot be written"):
        list(reports)

    assert (tmp_path / "precious").read_text() == "a thesis"
