"""Facts that must hold for the models: size, independence of batch and padding, gradients."""

from dataclasses import replace

import pytest
import torch
from clips import prepared_clip
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.clip import ClipBatch, collate
from slrctl.core.cmcl import CrossModalConsistencyLoss
from slrctl.core.model.build import build_model, num_parameters
from slrctl.core.model.siformer import SiFormer, Spoter
from slrctl.core.skeleton import BODY_WIDTH
from slrctl.settings import CMCLSettings, ModelSettings

KINDS = ["full", "prob", "first_frame"]
ALL_WEIGHTS = 2_469_800


def build(settings, kind="full", name="siformer", **changes):
    model_settings = settings.model.model_copy(update={"attention": kind, "name": name, **changes})
    return build_model(model_settings, 4, seed=3).eval()


def pad_to(batch: ClipBatch, num_frames: int, value: float = 0.0) -> ClipBatch:
    """Add padding that holds anything."""
    extra = num_frames - batch.is_valid.shape[1]
    return replace(
        batch,
        left_hand=F.pad(batch.left_hand, (0, 0, 0, extra), value=value),
        right_hand=F.pad(batch.right_hand, (0, 0, 0, extra), value=value),
        body=F.pad(batch.body, (0, 0, 0, extra), value=value),
        is_valid=F.pad(batch.is_valid, (0, extra)),
        left_is_present=F.pad(batch.left_is_present, (0, extra)),
        right_is_present=F.pad(batch.right_is_present, (0, extra)),
    )


def rows(batch: ClipBatch, *order: int) -> ClipBatch:
    """Take some clips of a batch, at the same padded length."""
    index = list(order)
    return ClipBatch(
        batch.left_hand[index],
        batch.right_hand[index],
        batch.body[index],
        batch.is_valid[index],
        batch.left_is_present[index],
        batch.right_is_present[index],
        None if batch.target is None else batch.target[index],
        tuple(batch.clip_ids[row] for row in index),
    )


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_published_size_has_2469800_weights():
    model = SiFormer(ModelSettings(), 100)
    encoders = [model.left_encoder, model.right_encoder, model.body_encoder]
    assert model.fusion is not None

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    tables = sum(encoder.positions.numel() for encoder in encoders)
    query = model.decoder.class_query.numel()
    assert count(model) == ALL_WEIGHTS
    assert count(*encoders) - tables == 1_397_916
    assert tables == 22_032
    assert count(model.decoder) - query == 984_736
    assert count(model.fusion) == 54_108
    assert count(model.classifier) == 10_900


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["siformer", "spoter"])
def test_other_batch_mates_change_no_bit_of_a_clips_logits(
    tiny_settings, batch, rng, one_thread, kind, name
):
    model = build(tiny_settings, kind, name)
    other = collate(
        [prepared_clip(rng, "a", 7), prepared_clip(rng, "b", 3), prepared_clip(rng, "c", 7)],
        ["0", "1", "2", "3"],
    )
    mixed = replace(
        other,
        left_hand=torch.cat([batch.left_hand[:1], other.left_hand[1:]]),
        right_hand=torch.cat([batch.right_hand[:1], other.right_hand[1:]]),
        body=torch.cat([batch.body[:1], other.body[1:]]),
        is_valid=torch.cat([batch.is_valid[:1], other.is_valid[1:]]),
        left_is_present=torch.cat([batch.left_is_present[:1], other.left_is_present[1:]]),
        right_is_present=torch.cat([batch.right_is_present[:1], other.right_is_present[1:]]),
    )

    assert torch.equal(model(batch).logits[0], model(mixed).logits[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["siformer", "spoter"])
def test_padding_of_any_content_and_the_batch_size_change_no_prediction(
    tiny_settings, batch, kind, name
):
    model = build(tiny_settings, kind, name)

    together = model(batch).logits
    padded = model(pad_to(batch, 12, value=1e4)).logits
    alone = torch.cat([model(rows(batch, row)).logits for row in range(3)])

    assert_close(padded, together, atol=1e-5, rtol=0)
    assert_close(alone, together, atol=1e-5, rtol=0)
    assert torch.equal(padded.argmax(-1), together.argmax(-1))


def test_the_number_of_threads_changes_no_prediction(batch, one_thread):
    model = SiFormer(ModelSettings(), 4, seed=3).eval()
    with_one = model(batch).logits
    torch.set_num_threads(2)

    assert_close(model(batch).logits, with_one, atol=1e-5, rtol=0)


def test_a_clip_trimmed_to_its_own_length_is_predicted_alike(tiny_settings, batch):
    model = build(tiny_settings)
    second = rows(batch, 1)
    trimmed = ClipBatch(
        second.left_hand[:, :5],
        second.right_hand[:, :5],
        second.body[:, :5],
        second.is_valid[:, :5],
        second.left_is_present[:, :5],
        second.right_is_present[:, :5],
        second.target,
        second.clip_ids,
    )

    assert_close(model(trimmed).logits, model(batch).logits[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["full", "prob"])
@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_the_order_of_the_frames_matters(tiny_settings, batch, rng, kind, order):
    model = build(tiny_settings, kind)
    clip = rows(batch, 0)
    frames = torch.arange(6, -1, -1) if order == "reversed" else torch.randperm(7, generator=rng)
    moved = replace(
        clip,
        left_hand=clip.left_hand[:, frames],
        right_hand=clip.right_hand[:, frames],
        body=clip.body[:, frames],
        left_is_present=clip.left_is_present[:, frames],
        right_is_present=clip.right_is_present[:, frames],
    )

    assert (model(moved).logits - model(clip).logits).abs().max() > 1e-4


def test_two_seeds_differ_at_initialisation_and_one_seed_repeats():
    first, again, other = (SiFormer(ModelSettings(), 7, seed=seed) for seed in (1, 1, 2))
    weights = first.state_dict()

    assert all(torch.equal(weights[name], value) for name, value in again.state_dict().items())
    assert not torch.equal(weights["classifier.weight"], other.state_dict()["classifier.weight"])


def test_without_the_fusion_every_other_weight_starts_the_same():
    with_fusion = SiFormer(ModelSettings(), 7, seed=1).state_dict()
    without = SiFormer(ModelSettings(cross_attention=False), 7, seed=1).state_dict()

    assert set(with_fusion) - set(without) == {n for n in with_fusion if n.startswith("fusion.")}
    assert all(torch.equal(with_fusion[name], value) for name, value in without.items())


def test_building_a_model_leaves_torchs_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    SiFormer(ModelSettings(), 7, seed=1)

    assert torch.equal(torch.rand(3), expected)


def test_both_hands_have_position_tables_of_their_own():
    model = SiFormer(ModelSettings(), 7)

    assert model.left_encoder.positions is not model.right_encoder.positions
    table = model.left_encoder.positions.detach()
    assert table.abs().max() <= 0.1
    assert (table.std(dim=1) > 0.01).all()  # not one number repeated, which LayerNorm removes


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient_that_is_not_zero(tiny_settings, rng, kind):
    model = build(tiny_settings, kind).train()
    loss = CrossModalConsistencyLoss(CMCLSettings(lambda_consistency=0.1, lambda_alignment=0.05))
    full_length = tiny_settings.model.max_frames
    clips = [prepared_clip(rng, f"clip {row}", full_length, str(row)) for row in range(4)]
    batch = collate(clips, ["0", "1", "2", "3"])

    output = model(batch, return_attention=True, return_features=True)
    loss(output, batch).total.backward()

    without = [
        name
        for module in (model, loss)
        for name, parameter in module.named_parameters()
        if parameter.grad is None
        or (not parameter.grad.any() and "key_projection.bias" not in name)
    ]
    assert without == []


@pytest.mark.parametrize("cross_attention", [True, False])
def test_asking_for_features_and_attention_changes_no_bit_of_the_logits(
    tiny_settings, batch, cross_attention
):
    model = build(tiny_settings, cross_attention=cross_attention).train()
    torch.manual_seed(1)
    plain = model(batch)
    torch.manual_seed(1)

    asked = model(batch, return_attention=cross_attention, return_features=True)

    assert torch.equal(asked.logits, plain.logits)
    assert (plain.attention, plain.features) == (None, None)
    assert asked.features is not None
    assert asked.features.body.shape == (3, 7, BODY_WIDTH)


def test_attention_of_a_model_without_fusion_is_refused(tiny_settings, batch):
    with pytest.raises(ValueError, match="cross_attention = true"):
        build(tiny_settings, cross_attention=False)(batch, return_attention=True)


def test_a_clip_longer_than_the_table_is_refused(tiny_settings, rng):
    batch = collate([prepared_clip(rng, "long", 13)])

    with pytest.raises(ValueError, match=r"13 frames is longer than model.max_frames \(12\)"):
        build(tiny_settings)(batch)


def test_spoter_reads_all_landmarks_in_one_stream(tiny_settings, batch):
    model = build(tiny_settings, name="spoter")

    assert isinstance(model, Spoter)
    assert model.encoder.positions.shape == (12, 108)
    with pytest.raises(ValueError, match="one stream"):
        model(batch, return_attention=True)


def test_weights_are_counted_without_memory_for_them():
    assert num_parameters(ModelSettings(name="siformer"), 100) == ALL_WEIGHTS


def test_it_fits_one_batch(tiny_settings, batch):
    model = build(tiny_settings, dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(batch).logits, batch.target).backward()
        optimizer.step()

    assert torch.equal(model.eval()(batch).logits.argmax(-1), batch.target)
