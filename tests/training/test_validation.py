"""Validation: its numbers do not depend on the batches, and what breaks it is named."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from slrctl.core.cmcl.alignment import ClipFacts
from slrctl.core.cmcl.diagnostics import entropy_ratio
from slrctl.core.data.batches import evaluation_batches
from slrctl.errors import TrainingDiverged
from slrctl.settings import Settings
from slrctl.training import validation
from slrctl.training.loop import TrainingData
from slrctl.training.state import TrainingState
from slrctl.training.validation import validate

CPU = torch.device("cpu")
BALANCED = {"preset": "balanced", "lambda_consistency": 0.1, "lambda_alignment": 0.05}


@pytest.fixture
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), {"cmcl": BALANCED})


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"consistency": "cycle", "temporal": True},
        {"multi_scale": True},
        {"alignment": "contrastive", "multi_scale": True},
    ],
)
def test_terms_are_those_of_all_clips_at_once_whatever_the_batch_size(
    settings, tiny_splits, form, batch_size
):
    settings = Settings.layered(settings.model_dump(), {"cmcl": form})
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    clips = tiny_splits.train
    (whole,) = evaluation_batches(clips, settings, batch_size=len(clips))
    wanted = {"return_hand_attention": True, "return_features": True, "return_layer_features": True}
    with torch.no_grad():
        output = state.model.eval()(whole, **wanted)
        terms = state.loss(output, whole).terms
    maps = output.hand_attention
    ratios, is_counted = entropy_ratio(
        maps.right_to_left, whole.right_is_present, whole.left_is_present
    )

    batches = evaluation_batches(clips, settings, batch_size=batch_size)
    metrics = validate(state.model, state.loss, batches, CPU, epoch=0)

    expected = {
        "val_accuracy": float((output.logits.argmax(-1) == whole.target).float().mean()),
        "val_classification": float(cross_entropy(output.logits, ClipFacts.of(whole).target)),
        "val_consistency": float(terms["consistency"]),
        "val_alignment": float(terms["alignment"]),
        "val_entropy_right_to_left": float(ratios[is_counted].mean()),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert metrics["val_loss"] == pytest.approx(
        expected["val_classification"]
        + 0.1 * expected["val_consistency"]
        + 0.05 * expected["val_alignment"],
        rel=1e-4,
    )


def test_the_contrastive_form_compares_clips_in_groups_of_one_size(
    settings, tiny_splits, monkeypatch
):
    settings = Settings.layered(settings.model_dump(), {"cmcl": {"alignment": "contrastive"}})
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    monkeypatch.setattr(validation, "_CONTRASTED_TOGETHER", 4)

    alignments = []
    for size in (3, 4, 8):
        batches = evaluation_batches(tiny_splits.train, settings, batch_size=size)
        metrics = validate(state.model, state.loss, batches, CPU, epoch=0)
        alignments.append(metrics["val_alignment"])

    assert alignments == pytest.approx(alignments[:1] * 3, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_validation_names_the_clips_whose_loss_is_not_finite(settings, tiny_splits, value):
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    batches = list(TrainingData.of_splits(tiny_splits, settings, CPU).validation())
    batches[0].body[0, 0, 0] = value  # which no reader lets pass

    with pytest.raises(
        TrainingDiverged, match="validation loss: the classification term"
    ) as caught:
        validate(state.model, state.loss, batches, CPU, epoch=0)

    assert str(caught.value).endswith(f"look at the clips: {batches[0].clip_ids[0]}")


def test_validation_names_a_term_of_cmcl_that_is_not_finite(settings, tiny_splits):
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    data = TrainingData.of_splits(tiny_splits, settings, CPU)
    assert state.loss.projections is not None
    with torch.no_grad():
        state.loss.projections.body.weight.fill_(torch.nan)

    with pytest.raises(TrainingDiverged, match="validation loss: the alignment term is nan"):
        validate(state.model, state.loss, data.validation(), CPU, epoch=0)
