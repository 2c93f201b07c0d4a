"""The training loop: it repeats to the bit, follows its schedule, and stops when it breaks."""

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.data.dataset import canonical_dataset
from slrctl.errors import TrainingDiverged
from slrctl.settings import Settings, TrainSettings
from slrctl.training.loop import (
    BatchReport,
    EpochReport,
    TrainingData,
    learning_rate,
    train_epochs,
)
from slrctl.training.state import Progress, TrainingState

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "loss_curve.json"
CPU = torch.device("cpu")
BALANCED = {"cmcl": {"preset": "balanced", "lambda_consistency": 0.1, "lambda_alignment": 0.05}}


@pytest.fixture
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), BALANCED)


def trained(settings, splits, steps=None):
    """A state after some reports, and the reports."""
    state = TrainingState.initial(settings, splits.train.classes, CPU)
    reports = []
    for report in train_epochs(state, TrainingData.of_splits(splits, settings, CPU)):
        reports.append(report)
        if len(reports) == steps:
            break
    return state, reports


def without_times(report):
    if isinstance(report, EpochReport):
        times = {"seconds", "clips_per_second"}
        metrics = {name: value for name, value in report.metrics.items() if name not in times}
        return report._replace(metrics=metrics)
    return report


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", ["siformer", "streamformer", "conv"])
def test_two_trainings_with_one_seed_are_equal_to_the_bit_and_another_seed_differs(
    tiny_settings, tiny_splits, name
):
    cmcl = {} if name == "conv" else BALANCED
    size = {"embed_dim": 16, "joint_dim": 16, "num_heads": 2}
    settings = Settings.layered(tiny_settings.model_dump(), cmcl, {"model": {"name": name, **size}})
    first, reports = trained(settings, tiny_splits)
    second, again = trained(settings, tiny_splits)
    _, others = trained(settings.model_copy(update={"seed": 1}), tiny_splits, steps=1)

    assert same_tensors(first.tensors(), second.tensors())
    assert [without_times(r) for r in reports] == [without_times(r) for r in again]
    assert reports[0].means["loss"] != others[0].means["loss"]


@pytest.fixture
def impatient(settings, monkeypatch):
    """Ten epochs, of which the second is the best one, and a patience of three."""
    judge = Progress.judge

    def second_is_best(self, epoch, **_):
        return judge(self, epoch, accuracy=0.5 if epoch == 2 else 0.25, error=0.0, loss=1.0)

    monkeypatch.setattr(Progress, "judge", second_is_best)
    return Settings.layered(settings.model_dump(), {"train": {"epochs": 10, "patience": 3}})


def test_a_training_stops_when_no_epoch_was_better_for_as_long_as_patience_lasts(
    impatient, tiny_splits
):
    state, reports = trained(impatient, tiny_splits)

    assert [r.epoch for r in reports if isinstance(r, EpochReport)] == [1, 2, 3, 4, 5]
    assert state.progress.best_epoch == 2
    assert state.is_over


@pytest.mark.parametrize("stop_after", [7, 14, 15])
def test_patience_is_as_long_for_a_training_that_is_restored(impatient, tiny_splits, stop_after):
    whole, reports = trained(impatient, tiny_splits)
    stopped, _ = trained(impatient, tiny_splits, steps=stop_after)
    state = TrainingState.initial(impatient, tiny_splits.train.classes, CPU)
    state.restore(stopped.tensors(), json.loads(json.dumps(asdict(stopped.progress))))

    rest = list(train_epochs(state, TrainingData.of_splits(tiny_splits, impatient, CPU)))

    assert [without_times(r) for r in rest] == [without_times(r) for r in reports[stop_after:]]
    assert same_tensors(state.tensors(), whole.tensors())


def test_training_and_validation_see_rectified_clips_where_asked(tiny_settings, tiny_splits):
    settings = Settings.layered(tiny_settings.model_dump(), {"prepare": {"rectify": True}})
    rectified = replace(
        tiny_splits,
        train=canonical_dataset(tiny_splits.train, settings.prepare),
        val=canonical_dataset(tiny_splits.val, settings.prepare),
    )

    data = TrainingData.of_splits(tiny_splits, settings, CPU)
    expected = TrainingData.of_splits(rectified, settings, CPU)
    plain = TrainingData.of_splits(tiny_splits, tiny_settings, CPU)

    for first in (
        lambda data: next(data.training(1, 0))[0].clips,
        lambda data: next(data.validation()),
    ):
        assert torch.equal(first(data).right_hand, first(expected).right_hand)
        assert not torch.equal(first(data).right_hand, first(plain).right_hand)


def test_reports_come_after_every_batch_and_every_epoch(settings, tiny_splits):
    _, reports = trained(settings, tiny_splits)

    places = [(r.epoch, r.batch if isinstance(r, BatchReport) else None) for r in reports]
    assert places == [(1, 1), (1, 2), (1, None), (2, 1), (2, 2), (2, None)]


def test_an_epochs_line_holds_every_term_the_lambdas_and_the_diagnostics(settings, tiny_splits):
    _, reports = trained(settings, tiny_splits, steps=3)
    metrics = reports[2].metrics

    assert metrics["train_loss"] == pytest.approx(
        metrics["train_classification"]
        + 0.1 * metrics["train_consistency"]
        + 0.05 * metrics["train_alignment"],
        abs=0.05,  # the terms are means over the clips that contribute, the loss over batches
    )
    assert (metrics["lambda_consistency"], metrics["lambda_alignment"]) == (0.1, 0.05)
    assert 0 < metrics["gradient_norm_consistency"] < metrics["gradient_norm_classification"]
    assert 0 < metrics["val_entropy_left_to_right"] <= 1 + 1e-6
    assert all(value is None or math.isfinite(value) for value in metrics.values())


def test_without_cmcl_its_terms_are_not_computed_in_training(tiny_settings, tiny_splits):
    _, reports = trained(tiny_settings, tiny_splits, steps=3)
    metrics = reports[2].metrics

    assert metrics["train_consistency"] is None
    assert metrics["train_alignment"] is None
    assert metrics["gradient_norm_consistency"] is None
    assert metrics["train_loss"] == metrics["train_classification"]


@pytest.mark.parametrize(
    "changes",
    [{"name": "spoter"}, {"cross_attention": False}, {"name": "gru"}, {"name": "conv"}],
    ids=str,
)
def test_models_without_cross_attention_train_too(tiny_settings, tiny_splits, changes):
    settings = Settings.layered(tiny_settings.model_dump(), {"model": changes})

    _, reports = trained(settings, tiny_splits)

    assert "val_consistency" not in reports[-1].metrics
    assert math.isfinite(reports[-1].metrics["val_loss"])


def test_bf16_training_follows_fp32(settings, tiny_splits):
    half = Settings.layered(settings.model_dump(), {"train": {"precision": "bf16"}})

    _, plain = trained(settings, tiny_splits, steps=2)
    _, reports = trained(half, tiny_splits, steps=2)

    assert reports[1].means["loss"] != plain[1].means["loss"]
    assert reports[1].means["loss"] == pytest.approx(plain[1].means["loss"], rel=0.03)


@pytest.mark.parametrize(
    ("poison", "term"),
    [("model.classifier.weight", "classification"), ("loss.projections.body.weight", "alignment")],
)
def test_a_loss_that_is_not_finite_names_the_step_term_and_clips_and_changes_nothing(
    settings, tiny_splits, poison, term
):
    state, _ = trained(settings, tiny_splits, steps=1)
    module, _, name = poison.partition(".")
    weights = getattr(state, module).state_dict()
    with torch.no_grad():
        weights[name].fill_(torch.nan)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}

    with pytest.raises(
        TrainingDiverged, match=f"epoch 1, step 2: the {term} term is nan"
    ) as caught:
        list(train_epochs(state, TrainingData.of_splits(tiny_splits, settings, CPU)))

    assert caught.value.exit_code == 4
    assert any(clip.clip_id in str(caught.value) for clip in tiny_splits.train)
    assert "--learning-rate" in str(caught.value)
    assert_close(state.tensors(), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_in_the_clips_that_is_not_finite_stops_a_training(settings, tiny_splits, value):
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    data = TrainingData.of_splits(tiny_splits, settings, CPU)

    def poisoned(epoch, start):
        for micro_batches in data.training(epoch, start):
            micro_batches[0].clips.body[0, 0, 0] = value  # which no reader lets pass
            yield micro_batches

    with pytest.raises(TrainingDiverged, match="epoch 1, step 1: the classification term is nan"):
        list(train_epochs(state, data._replace(training=poisoned)))


def test_the_first_five_losses_are_the_golden_ones(settings, tiny_splits):
    longer = Settings.layered(settings.model_dump(), {"train": {"epochs": 3}})
    _, reports = trained(longer, tiny_splits, steps=7)
    curve = [report.means["loss"] for report in reports if isinstance(report, BatchReport)]

    if os.environ.get("WRITE_GOLDEN"):  # after a change that is meant to move the curve
        GOLDEN.write_text(json.dumps({"losses": curve}, indent=2) + "\n")
    golden = json.loads(GOLDEN.read_text())["losses"]

    # Relative, for another processor sums in another order.
    assert len(curve) == 5
    assert_close(torch.tensor(curve), torch.tensor(golden), rtol=1e-4, atol=0)


def test_the_best_epoch_is_chosen_by_the_accuracy_its_standard_error_and_the_loss_of_validation(
    settings, tiny_splits
):
    settings = Settings.layered(settings.model_dump(), {"train": {"epochs": 8}})
    state, reports = trained(settings, tiny_splits)
    lines = [report.metrics for report in reports if isinstance(report, EpochReport)]

    num_clips = len(tiny_splits.val)
    progress = Progress()
    for line in lines:
        right = round(num_clips * line["val_accuracy"])
        wrong = num_clips - right
        assert line["val_accuracy_error"] == pytest.approx(math.sqrt(right * wrong / num_clips**3))
        assert line["is_best"] == progress.judge(
            line["epoch"],
            accuracy=line["val_accuracy"],
            error=line["val_accuracy_error"],
            loss=line["val_classification"],
        )
    assert len({line["val_accuracy"] for line in lines}) > 1
    for name in ("best_epoch", "best_accuracy", "best_error", "best_loss", "improved_epoch"):
        assert getattr(state.progress, name) == getattr(progress, name)


@pytest.mark.parametrize(
    ("schedule", "warmup_epochs", "epoch", "share", "factor"),
    [
        *(("constant", 0, epoch, 0.5, 1.0) for epoch in (0, 9)),
        *(("multistep", 0, epoch, 0.5, factor) for epoch, factor in [(5, 1), (6, 0.1), (8, 0.01)]),
        *(("multistep", 0, epoch, 0.0, factor) for epoch, factor in [(0, 1), (7, 0.1), (9, 0.01)]),
        *(("cosine", 0, epoch, 0.0, factor) for epoch, factor in [(0, 1), (5, 0.5), (10, 0)]),
        # The first step of a warm-up is not idle; a cosine is counted from its end.
        *(("constant", 2, 0, share, factor) for share, factor in [(0.0, 0.005), (0.5, 0.25)]),
        *(("constant", 2, epoch, 0.5, factor) for epoch, factor in [(1, 0.75), (2, 1)]),
        *(("cosine", 2, epoch, 0.0, factor) for epoch, factor in [(2, 1), (6, 0.5)]),
        # If none is given it takes a fifteenth of the epochs, here two thirds of one.
        *(("constant", None, 0, share, factor) for share, factor in [(1 / 3, 0.5), (0.7, 1)]),
        *(("cosine", None, epoch, 0.0, factor) for epoch, factor in [(10, 0)]),
    ],
)
def test_the_learning_rate_follows_its_warmup_and_its_schedule(
    schedule, warmup_epochs, epoch, share, factor
):
    settings = TrainSettings(
        epochs=10, learning_rate=0.4, warmup_epochs=warmup_epochs, schedule=schedule
    )

    assert learning_rate(settings, epoch, share) == pytest.approx(0.4 * factor)
