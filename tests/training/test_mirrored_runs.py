"""A run keeps to its way of dealing with mirrored signing, whoever evaluates it."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from slrctl.cli import app
from slrctl.core.data.mirror import hand_activity, mirrored_copy
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.splits import load_splits
from slrctl.core.devices import choose_device
from slrctl.evaluation.predictions import predict_dataset
from slrctl.runs.checkpoint import load_run
from slrctl.settings import Settings
from slrctl.training.run import run_training


@pytest.fixture
def settings(tiny_settings, tiny_dataset, tmp_path):
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    changes = {
        "prepare": {"dominant_hand": "right"},
        "data": {"train": path, "val_mirrored": True},
        "train": {"epochs": 1},
    }
    return Settings.layered(tiny_settings.model_dump(), changes)


@pytest.fixture
def run_dir(settings, tmp_path):
    for _ in run_training(settings, load_splits(settings), tmp_path / "run"):
        pass
    return tmp_path / "run"


def test_a_model_of_leading_right_hands_says_the_same_of_a_clip_and_its_mirror_image(
    run_dir, tiny_dataset
):
    run, device = load_run(run_dir), choose_device("cpu")
    # A clip without any hand has nothing to go by.
    clips = tiny_dataset.with_clips(
        clip for clip in tiny_dataset if any(hand_activity(clip.landmarks))
    )
    copies = tiny_dataset.with_clips(mirrored_copy(clip) for clip in clips)

    as_signed = predict_dataset(run.model, clips, run.settings, device).log_probabilities
    mirrored = predict_dataset(run.model, copies, run.settings, device).log_probabilities
    unsettled = Settings.layered(
        run.settings.model_dump(), {"prepare": {"dominant_hand": "as_signed"}}
    )
    otherwise = predict_dataset(run.model, copies, unsettled, device).log_probabilities

    assert_allclose(mirrored, as_signed, atol=1e-4)
    assert np.abs(otherwise - as_signed).max() > 1e-2


def test_validation_is_reported_over_clips_and_their_copies(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())

    assert summary["validation"]["clips"] == 2 * summary["test"]["clips"] == 8


def test_evaluate_uses_the_runs_leading_hand_and_its_mirrored_validation(run_dir):
    result = CliRunner().invoke(app, ["evaluate", str(run_dir), "--split", "val", "--json"])

    assert result.exit_code == 0, result.output
    reported = json.loads((run_dir / "summary.json").read_text())["validation"]
    evaluated = json.loads(result.stdout)
    assert {key: evaluated[key] for key in reported} == reported


@pytest.mark.parametrize(
    "assignment", ["prepare.dominant_hand=as_signed", "data.val_mirrored=false"]
)
def test_evaluate_refuses_to_change_them(run_dir, assignment):
    result = CliRunner().invoke(app, ["evaluate", str(run_dir), "--set", assignment])

    assert result.exit_code == 2
    assert "is settled by the run" in " ".join(result.output.split())
