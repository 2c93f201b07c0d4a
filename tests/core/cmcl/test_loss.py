"""The loss as a whole: its terms in every form, its lambdas, its micro-batches, its needs."""

import pytest
import torch
from clips import prepared_clip
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.clip import collate
from slrctl.core.cmcl import (
    AdaptiveCMCL,
    CrossModalConsistencyLoss,
    adaptive_factor,
    alignment_loss,
    consistency_loss,
    contrastive_loss,
    cycle_loss,
    temporal_loss,
)
from slrctl.core.cmcl.alignment import ClipFacts, Contrast, stream_means
from slrctl.core.cmcl.loss import build_loss, default_warmup
from slrctl.core.model.siformer import SiFormer
from slrctl.settings import CMCLSettings, ModelSettings, Settings, TrainSettings

ALL = {"return_attention": True, "return_features": True, "return_layer_features": True}
FORMS = [
    {},
    {"consistency": "cycle"},
    {"alignment": "contrastive"},
    {"temporal": True},
    {"consistency": "cycle", "temporal": True, "multi_scale": True},
    {"alignment": "contrastive", "multi_scale": True},
]


def balanced(**changes) -> CMCLSettings:
    return CMCLSettings(lambda_consistency=0.1, lambda_alignment=0.05, **changes)


@pytest.fixture
def model(tiny_settings, num_classes):
    return SiFormer(tiny_settings.model, num_classes, seed=1).eval()


@pytest.fixture
def output(model, batch):
    return model(batch, **ALL)


def hand_maps(output, batch):
    left_to_right, right_to_left = output.hand_attention
    return left_to_right, right_to_left, batch.left_is_present, batch.right_is_present


def test_the_loss_is_the_sum_of_its_weighted_terms(output, batch):
    terms = CrossModalConsistencyLoss(balanced())(output, batch)

    assert_close(terms.classification, F.cross_entropy(output.logits, batch.target))
    assert_close(terms.consistency, consistency_loss(*hand_maps(output, batch)))
    assert_close(
        terms.total, terms.classification + 0.1 * terms.consistency + 0.05 * terms.alignment
    )


def test_without_lambdas_it_is_cross_entropy_and_needs_no_maps(output, batch):
    loss = CrossModalConsistencyLoss(CMCLSettings(), label_smoothing=0.1)

    terms = loss(output._replace(hand_attention=None, features=None), batch)

    assert_close(terms.total, F.cross_entropy(output.logits, batch.target, label_smoothing=0.1))
    assert (terms.consistency, terms.alignment) == (None, None)
    assert not list(loss.parameters())


def test_alignment_compares_projected_means_over_present_frames(output, batch):
    loss = CrossModalConsistencyLoss(balanced())
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

    assert_close(loss(output, batch).alignment, expected)


def test_the_cycle_form_takes_the_place_of_the_divergence(output, batch):
    loss = CrossModalConsistencyLoss(balanced(consistency="cycle"))

    assert_close(loss(output, batch).consistency, cycle_loss(*hand_maps(output, batch)))


@pytest.mark.parametrize("form", ["kl", "cycle"])
def test_the_temporal_extension_is_added_to_either_form(output, batch, form):
    loss = CrossModalConsistencyLoss(balanced(consistency=form, temporal=True, temperature=2.0))

    maps = hand_maps(output, batch)
    base = consistency_loss(*maps, temperature=2.0) if form == "kl" else cycle_loss(*maps)
    expected = base + temporal_loss(*maps, temperature=2.0)
    assert_close(loss(output, batch).consistency, expected)


def test_the_contrastive_form_sees_the_glosses(output, batch):
    loss = CrossModalConsistencyLoss(balanced(alignment="contrastive", contrastive_temperature=0.3))

    ((left, right, body),) = loss.embeddings(output, batch)

    expected = contrastive_loss(
        left,
        right,
        body,
        batch.target,
        batch.left_is_present.any(1),
        batch.right_is_present.any(1),
        temperature=0.3,
    )
    assert expected > 0
    assert_close(loss(output, batch).alignment, expected)


def test_multi_scale_is_the_mean_of_the_fused_streams_and_those_after_every_layer(
    output, batch, tiny_settings
):
    num_layers = tiny_settings.model.num_encoder_layers
    loss = CrossModalConsistencyLoss(balanced(multi_scale=True), num_encoder_layers=num_layers)
    masks = batch.left_is_present.any(1), batch.right_is_present.any(1)
    assert loss.projections is not None

    projections = [loss.projections, *loss.layer_projections]
    streams = [output.features, *output.layer_features]
    expected = []
    for project, one in zip(projections, streams, strict=True):
        left, right, body = project(stream_means(one, batch))
        expected.append(alignment_loss(left, right, body, *masks))

    assert len(expected) == num_layers + 1
    assert_close(loss(output, batch).alignment, torch.stack(expected).mean())


def test_multi_scale_leaves_the_projections_of_the_fused_streams_as_they_were():
    plain = CrossModalConsistencyLoss(balanced(), seed=3)
    multi = CrossModalConsistencyLoss(balanced(multi_scale=True), seed=3)
    assert plain.projections is not None
    assert multi.projections is not None

    assert torch.equal(plain.projections.body.weight, multi.projections.body.weight)
    assert sum(p.numel() for p in plain.parameters()) == 7_104
    assert sum(p.numel() for p in multi.parameters()) == 4 * 7_104


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reaches_every_projection_and_the_fusion(model, output, batch, form):
    scales = {**form, "multi_scale": True}
    loss = CrossModalConsistencyLoss(balanced(**scales), num_encoder_layers=2)
    assert model.fusion is not None

    terms = loss(output, batch)
    weight = model.fusion.left_from_right.attention.query_projection.weight
    (by_consistency,) = torch.autograd.grad(terms.consistency, weight, retain_graph=True)
    terms.alignment.backward()

    assert by_consistency.abs().max() > 0
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name.endswith("bias"), name


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_computed_in_float32_under_autocast(model, output, batch, form):
    loss = CrossModalConsistencyLoss(balanced(**form), num_encoder_layers=2)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(model(batch, **ALL), batch)

    assert terms.total.dtype == torch.float32
    assert_close(terms.total, loss(output, batch).total, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("form", "consistency", "alignment"),
    [
        # The second clip of the batch has no left hand; the third shows both in three frames.
        ({}, [[1, 0, 1]], [[1, 1, 1]]),
        ({"consistency": "cycle"}, [[1, 0, 0]], [[1, 1, 1]]),
        ({"consistency": "cycle", "temporal": True}, [[1, 0, 0], [1, 0, 1]], [[1, 1, 1]]),
        ({"alignment": "contrastive"}, [[1, 0, 1]], [[1, 1, 1]]),
    ],
)
def test_the_clips_that_contribute_are_known_from_the_batch(batch, form, consistency, alignment):
    loss = CrossModalConsistencyLoss(balanced(**form))

    masks = [loss.contributing(name, batch) for name in ("consistency", "alignment")]

    assert [[mask.tolist() for mask in term] for term in masks] == [consistency, alignment]
    assert loss.num_means("consistency") == len(consistency)


def test_a_batch_of_one_gloss_has_nothing_to_contrast(output, batch):
    batch.target.fill_(1)
    loss = CrossModalConsistencyLoss(balanced(alignment="contrastive"))

    (contributes,) = loss.contributing("alignment", batch)

    assert not contributes.any()
    assert loss(output, batch).alignment == 0


@pytest.fixture
def clips(rng):
    """Seven clips, of which some lack a hand throughout, or but for a frame or every other one."""
    made = [prepared_clip(rng, f"clip {number}", 8, str(number % 4)) for number in range(7)]
    made[0].landmarks[:, 12:33] = float("nan")
    made[1].landmarks[1:, 33:54] = float("nan")
    made[2].landmarks[::2, 12:33] = float("nan")
    made[3].landmarks[:, 12:54] = float("nan")
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_micro_batches_add_up_to_the_loss_and_the_gradient_of_the_batch(model, clips, form, count):
    loss = CrossModalConsistencyLoss(balanced(**form), label_smoothing=0.1, num_encoder_layers=2)
    parameters = [*model.parameters(), *loss.parameters()]
    order = [index for start in range(count) for index in range(start, len(clips), count)]
    whole = collate([clips[index] for index in order], ["0", "1", "2", "3"])
    parts = [collate(clips[start::count], ["0", "1", "2", "3"]) for start in range(count)]

    expected = loss(model(whole, **ALL), whole)
    counts = {
        name: [int(mask.sum()) for mask in loss.contributing(name, whole)]
        for name in loss.trained_terms
    }
    contrasts = [None] * count
    if loss.is_contrastive:
        embeddings = loss.embeddings(model(whole, **ALL), whole)
        contrast = Contrast.of_batch(embeddings, ClipFacts.of(whole), loss.settings)
        ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        contrasts = [
            contrast.of_clips(slice(end - len(part), end))
            for end, part in zip(ends, parts, strict=True)
        ]
    terms = [
        loss(model(part, **ALL), part, counts=counts, contrast=contrast)
        for part, contrast in zip(parts, contrasts, strict=True)
    ]

    for name in loss.trained_terms:
        assert_close(sum(one.terms[name] for one in terms), expected.terms[name])
    total = torch.stack([one.total for one in terms]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    wanted = torch.autograd.grad(expected.total, parameters, allow_unused=True)
    assert_close(total, expected.total)
    assert_close(gradients, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.25), (3, 1.0), (4, 0.95), (6, 0.95**3)])
def test_the_adaptive_schedule_moves_both_lambdas(output, batch, epoch, factor):
    settings = balanced(adaptive=True, warmup_epochs=4)
    loss = AdaptiveCMCL(settings, num_epochs=20)

    terms = loss(output, batch, epoch=epoch)

    assert_close(
        terms.total,
        terms.classification + 0.1 * factor * terms.consistency + 0.05 * factor * terms.alignment,
    )
    assert terms.lambdas == pytest.approx(
        {"classification": 1, "consistency": 0.1 * factor, "alignment": 0.05 * factor}
    )


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 0.95), (11, 0.95**2), (99, 0.95**90)]
)
def test_the_factor_warms_up_and_decays_as_published(epoch, factor):
    assert adaptive_factor(epoch) == pytest.approx(factor)


def test_the_factor_is_never_zero():
    assert all(adaptive_factor(epoch) > 0 for epoch in range(2000))


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 1), (10, 1), (11, 2), (99, 10), (100, 10)])
def test_the_warmup_is_a_tenth_of_a_short_run_and_ten_epochs_of_a_long_one(epochs, warmup):
    assert default_warmup(epochs) == warmup


def test_the_settings_decide_the_schedule(output, batch):
    model, train = ModelSettings(name="siformer"), TrainSettings(epochs=40)
    adaptive = build_loss(Settings(model=model, cmcl=balanced(adaptive=True), train=train))
    fixed = build_loss(Settings(model=model, cmcl=balanced(), train=train))

    assert [adaptive.factor(epoch) for epoch in (0, 3, 4)] == pytest.approx([0.25, 1.0, 0.95])
    assert_close(fixed(output, batch, epoch=39).total, fixed(output, batch, epoch=0).total)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("hand_attention", "return_hand_attention=True"),
        ("features", "return_features=True"),
        ("layer_features", "return_layer_features=True"),
    ],
)
def test_an_output_that_is_missing_is_named(output, batch, missing, advice):
    loss = CrossModalConsistencyLoss(balanced(multi_scale=True), num_encoder_layers=2)

    with pytest.raises(ValueError, match=advice):
        loss(output._replace(**{missing: None}), batch)
