"""The forms the settings name, as the loss puts them together."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import (
    CrossModalConsistencyLoss,
    alignment_loss,
    consistency_loss,
    contrastive_loss,
    cycle_loss,
    temporal_loss,
)
from slrctl.core.cmcl.contributions import contributing_clips
from slrctl.core.cmcl.projections import stream_means
from slrctl.core.model import SiFormer
from slrctl.settings import CMCLSettings


def settings(**changes) -> CMCLSettings:
    return CMCLSettings(lambda_consistency=0.1, lambda_alignment=0.05, **changes)


@pytest.fixture
def output(tiny_settings, batch, num_classes):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    return model(batch, return_attention=True, return_features=True, return_layer_features=True)


def hand_maps(output, batch):
    maps = output.attention
    return (
        maps.left_to_right,
        maps.right_to_left,
        batch.left_is_present,
        batch.right_is_present,
    )


def test_the_cycle_form_takes_the_place_of_the_divergence(output, batch):
    loss = CrossModalConsistencyLoss(settings(consistency="cycle"))

    assert_close(loss.consistency(output, batch), cycle_loss(*hand_maps(output, batch)))


@pytest.mark.parametrize("form", [{"consistency": "kl"}, {"consistency": "cycle"}])
def test_the_temporal_extension_is_added_to_either_form(output, batch, form):
    base = CrossModalConsistencyLoss(settings(**form)).consistency(output, batch)

    extended = CrossModalConsistencyLoss(settings(**form, temporal=True, temperature=2.0))

    maps = hand_maps(output, batch)
    base = consistency_loss(*maps, temperature=2.0) if form["consistency"] == "kl" else base
    assert_close(extended.consistency(output, batch), base + temporal_loss(*maps, temperature=2.0))


def test_the_contrastive_form_sees_the_glosses(output, batch):
    loss = CrossModalConsistencyLoss(settings(alignment="contrastive", contrastive_temperature=0.3))

    (streams,) = loss.embeddings(output, batch)

    expected = contrastive_loss(
        *streams,
        batch.target,
        batch.left_is_present.any(1),
        batch.right_is_present.any(1),
        temperature=0.3,
    )
    assert expected > 0
    assert_close(loss.alignment(output, batch), expected)


def test_multi_scale_is_the_mean_of_the_fused_streams_and_those_after_every_layer(
    output, batch, tiny_settings
):
    num_layers = tiny_settings.model.num_encoder_layers
    loss = CrossModalConsistencyLoss(settings(multi_scale=True), num_encoder_layers=num_layers)
    masks = batch.left_is_present.any(1), batch.right_is_present.any(1)
    assert loss.projections is not None

    projections = [loss.projections, *loss.layer_projections]
    streams = [output.features, *output.layer_features]
    expected = []
    for project, one in zip(projections, streams, strict=True):
        left, right, body = project(*stream_means(one, batch))
        expected.append(alignment_loss(left, right, body, *masks))

    assert len(expected) == num_layers + 1
    assert_close(loss.alignment(output, batch), torch.stack(expected).mean())


def test_multi_scale_leaves_the_projections_of_the_fused_streams_as_they_were():
    plain = CrossModalConsistencyLoss(settings(), seed=3)
    multi = CrossModalConsistencyLoss(settings(multi_scale=True), seed=3)
    assert plain.projections is not None
    assert multi.projections is not None

    assert torch.equal(plain.projections.body.weight, multi.projections.body.weight)
    assert sum(p.numel() for p in multi.parameters()) == 4 * 7_104


@pytest.mark.parametrize(
    "form", [{}, {"consistency": "cycle"}, {"alignment": "contrastive"}, {"temporal": True}]
)
def test_every_form_reaches_every_projection_and_the_fusion(
    tiny_settings, batch, num_classes, form
):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    loss = CrossModalConsistencyLoss(settings(**form, multi_scale=True), num_encoder_layers=2)
    output = model(batch, return_attention=True, return_features=True, return_layer_features=True)
    assert model.fusion is not None

    terms = loss(output, batch)
    (terms.total - terms.classification).backward()

    weight = model.fusion.left_from_right.attention.query_projection.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name.endswith("bias"), name


@pytest.mark.parametrize(
    "form",
    [
        {"consistency": "cycle"},
        {"alignment": "contrastive"},
        {"temporal": True},
        {"multi_scale": True},
    ],
)
def test_every_form_gives_the_same_under_bfloat16(tiny_settings, batch, num_classes, form):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    loss = CrossModalConsistencyLoss(settings(**form), num_encoder_layers=2)
    asked = {"return_attention": True, "return_features": True, "return_layer_features": True}

    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(model(batch, **asked), batch)
    plain = loss(model(batch, **asked), batch)

    assert terms.total.dtype == torch.float32
    assert_close(terms.total, plain.total, atol=0.02, rtol=0.02)


def test_asking_for_the_streams_after_every_layer_changes_no_bit_of_the_logits(
    tiny_settings, batch, num_classes, output
):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()

    assert torch.equal(model(batch).logits, output.logits)
    assert len(output.layer_features) == tiny_settings.model.num_encoder_layers


def test_missing_layer_features_are_named(output, batch):
    loss = CrossModalConsistencyLoss(settings(multi_scale=True), num_encoder_layers=2)

    with pytest.raises(ValueError, match="return_layer_features=True"):
        loss(output._replace(layer_features=None), batch)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        # The second clip of the batch has no left hand; the third shows both in three frames.
        ({}, (2, 3)),
        ({"consistency": "cycle"}, (1, 3)),
        ({"consistency": "cycle", "temporal": True}, (2, 3)),
        ({"alignment": "contrastive"}, (2, 3)),
    ],
)
def test_clips_are_counted_that_enter_a_term(batch, form, expected):
    assert contributing_clips(batch, settings(**form)) == expected


def test_a_batch_of_one_sign_has_nothing_to_be_told_apart_from(batch):
    batch.target.fill_(1)

    assert contributing_clips(batch, settings(alignment="contrastive")).alignment == 0
