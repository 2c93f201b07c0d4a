"""The loss as a whole: its sum, its lambdas, its needs."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.cmcl import AdaptiveCMCL, CrossModalConsistencyLoss, alignment_loss
from slrctl.core.cmcl.loss import build_loss
from slrctl.core.model import SiFormer
from slrctl.settings import CMCLSettings, Settings, TrainSettings

BALANCED = CMCLSettings(preset="balanced", lambda_consistency=0.1, lambda_alignment=0.05)


@pytest.fixture
def output(tiny_settings, batch, num_classes):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    return model(batch, return_attention=True, return_features=True)


def test_the_loss_is_the_sum_of_its_weighted_terms(output, batch):
    terms = CrossModalConsistencyLoss(BALANCED)(output, batch)

    assert terms.consistency is not None
    assert terms.alignment is not None
    assert_close(terms.classification, F.cross_entropy(output.logits, batch.target))
    assert_close(
        terms.total, terms.classification + 0.1 * terms.consistency + 0.05 * terms.alignment
    )


def test_without_lambdas_it_is_cross_entropy_and_needs_no_maps(output, batch):
    loss = CrossModalConsistencyLoss(CMCLSettings())

    terms = loss(output._replace(hand_attention=None, features=None), batch)

    assert_close(terms.total, F.cross_entropy(output.logits, batch.target))
    assert (terms.consistency, terms.alignment) == (None, None)
    assert not list(loss.parameters())


def test_alignment_compares_projected_means_over_present_frames(output, batch):
    loss = CrossModalConsistencyLoss(BALANCED)
    projections = loss.projections
    assert projections is not None

    def embedding(features, is_present, linear):
        means = [
            features[b][is_present[b]].mean(0)
            if is_present[b].any()
            else torch.zeros(features.shape[-1])
            for b in range(len(features))
        ]
        return torch.stack(means) @ linear.weight.T + linear.bias

    left, right, body = output.features
    expected = alignment_loss(
        embedding(left, batch.left_is_present, projections.left_hand),
        embedding(right, batch.right_is_present, projections.right_hand),
        embedding(body, batch.is_valid, projections.body),
        batch.left_is_present.any(1),
        batch.right_is_present.any(1),
    )

    assert_close(loss.alignment(output, batch), expected)


def test_the_projections_hold_7104_weights_outside_the_model():
    loss = CrossModalConsistencyLoss(BALANCED)

    assert sum(parameter.numel() for parameter in loss.parameters()) == 7_104


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.25), (3, 1.0), (4, 0.95), (6, 0.95**3)])
def test_the_adaptive_schedule_moves_both_lambdas(output, batch, epoch, factor):
    settings = BALANCED.model_copy(update={"adaptive": True, "warmup_epochs": 4})
    loss = AdaptiveCMCL(settings, num_epochs=20)

    terms = loss(output, batch, epoch=epoch)

    assert terms.lambda_consistency == pytest.approx(0.1 * factor)
    assert terms.lambda_alignment == pytest.approx(0.05 * factor)
    assert_close(
        terms.total,
        terms.classification
        + terms.lambda_consistency * terms.consistency
        + terms.lambda_alignment * terms.alignment,
    )


def test_a_short_adaptive_run_warms_up_for_a_tenth_of_it():
    cmcl = BALANCED.model_copy(update={"adaptive": True})
    loss = build_loss(Settings(cmcl=cmcl, train=TrainSettings(epochs=40)))

    assert [loss.factor(epoch) for epoch in (0, 3, 4)] == pytest.approx([0.25, 1.0, 0.95])


def test_fixed_lambdas_do_not_follow_the_epoch(output, batch):
    loss = build_loss(Settings(cmcl=BALANCED))

    assert_close(loss(output, batch, epoch=39).total, loss(output, batch, epoch=0).total)


def test_both_terms_reach_the_weights_of_the_fusion(tiny_settings, batch, num_classes):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    loss = CrossModalConsistencyLoss(BALANCED)
    output = model(batch, return_attention=True, return_features=True)
    assert model.fusion is not None
    weight = model.fusion.left_from_right.attention.query_projection.weight

    (by_consistency,) = torch.autograd.grad(
        loss.consistency(output, batch), weight, retain_graph=True
    )
    (by_alignment,) = torch.autograd.grad(loss.alignment(output, batch), weight)

    assert by_consistency.abs().max() > 0
    assert by_alignment.abs().max() > 0


def test_the_terms_are_float32_under_autocast(tiny_settings, batch, num_classes):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    loss = CrossModalConsistencyLoss(BALANCED)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(model(batch, return_attention=True, return_features=True), batch)
    plain = loss(model(batch, return_attention=True, return_features=True), batch)

    assert terms.total.dtype == torch.float32
    assert_close(terms.total, plain.total, atol=0.02, rtol=0.02)


def test_missing_maps_are_named(output, batch):
    with pytest.raises(ValueError, match="return_hand_attention=True"):
        CrossModalConsistencyLoss(BALANCED)(output._replace(hand_attention=None), batch)
