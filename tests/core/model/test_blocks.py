"""Blocks of the models against plain loops: inputs, recurrence, attention, convolution, pooling."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from clips import signing_clip
from plain_rotary import plain_weights
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import collate
from slrctl.core.data.batches import clip_batch
from slrctl.core.data.mirror import mirror_landmarks
from slrctl.core.model.blocks import (
    AttentionBlock,
    ClipPooling,
    ConvolutionBlock,
    FeatureDropout,
    RecurrentBlock,
    RotaryAttention,
    initial_log_scale,
    masked_attention,
    masked_weights,
    reading_order,
    stream_inputs,
    turned,
)
from slrctl.core.seeding import scoped_seed

B, T, D, H = 2, 7, 8, 2
CPU = torch.device("cpu")
OWN, PLACED, VELOCITY = 2.0, 2 / 3, 4.0


def with_random_values(module: Any) -> Any:
    """Give every parameter a value that nothing else has, scales and biases too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module.eval()


BLOCKS = {
    "recurrent": lambda: RecurrentBlock(D, 0.5),
    "convolution": lambda: ConvolutionBlock(D, 3, 0.5),
    "attention": lambda: AttentionBlock(D, H, 0.5),
}


@pytest.fixture
def frames(rng):
    return torch.randn(B, T, D, generator=rng)


@pytest.fixture
def is_valid():
    """A clip with frames removed from its middle, and one that is padded."""
    return torch.tensor([[1, 1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)


# --- inputs of the streams ------------------------------------------------------------------------


def mirrored_batch(batch):
    """The batch of the mirror images: x negated, left and right exchanged."""
    flip = torch.tensor([-1.0, 1.0])
    return replace(
        batch,
        left_hand=(batch.right_hand.unflatten(-1, (21, 2)) * flip).flatten(2),
        right_hand=(batch.left_hand.unflatten(-1, (21, 2)) * flip).flatten(2),
        left_is_present=batch.right_is_present,
        right_is_present=batch.left_is_present,
        placed=batch.placed[:, :, skeleton.MIRROR] * flip,
    )


def test_the_left_hand_of_a_mirror_image_reads_as_the_right_hand_to_the_bit(placed_batch):
    inputs, mirrored = stream_inputs(placed_batch), stream_inputs(mirrored_batch(placed_batch))

    assert torch.equal(mirrored.left_hand, inputs.right_hand)
    assert torch.equal(mirrored.right_hand, inputs.left_hand)
    assert inputs.left_hand.any()


def test_mirroring_the_clips_mirrors_what_the_model_reads(small_settings):
    clips = [signing_clip(seed, 9) for seed in (1, 2)]
    flipped = [replace(clip, landmarks=mirror_landmarks(clip.landmarks)) for clip in clips]

    inputs, mirrored = (
        stream_inputs(clip_batch(some, None, small_settings)) for some in (clips, flipped)
    )

    assert_close(mirrored.left_hand, inputs.right_hand, rtol=0, atol=1e-4)
    assert_close(mirrored.right_hand, inputs.left_hand, rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_hand_is_read_in_its_box_beside_the_body_and_by_its_velocity(placed_batch, side):
    sign = -1.0 if side == "left" else 1.0
    own = getattr(placed_batch, f"{side}_hand")
    present = getattr(placed_batch, f"{side}_is_present").tolist()
    first = 12 if side == "left" else 33

    inputs = getattr(stream_inputs(placed_batch), f"{side}_hand")

    expected = torch.zeros_like(inputs)
    for b, clip in enumerate(present):
        for t, is_present in enumerate(clip):
            for v in range(21):
                for c, direction in enumerate((sign, 1.0)):
                    feature, at = 2 * v + c, placed_batch.placed[b, :, first + v, c]
                    expected[b, t, feature] = OWN * direction * own[b, t, feature]
                    expected[b, t, 42 + feature] = PLACED * direction * at[t]
                    if is_present and t + 1 < len(clip) and clip[t + 1]:
                        change = PLACED * direction * (at[t + 1] - at[t])
                        expected[b, t, 84 + feature] = VELOCITY * change
            expected[b, t, 126] = float(is_present)
    assert_close(inputs, expected)


def test_velocities_are_zero_on_either_side_of_a_gap_and_at_the_end(placed_batch):
    present = torch.zeros_like(placed_batch.right_is_present)
    present[0] = torch.tensor([1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)
    batch = replace(placed_batch, right_is_present=present)

    velocities = stream_inputs(batch).right_hand[0, :, 84:126]

    moving = velocities.any(-1).nonzero()[:, 0].tolist()
    assert set(moving) <= {0, 3, 4}
    assert len(moving) > 1


def test_the_body_stands_still_into_its_padding(placed_batch):
    velocities = stream_inputs(placed_batch).body[..., 24:]

    last = placed_batch.is_valid.sum(1) - 1
    assert not velocities[torch.arange(3), last].any()
    assert velocities[torch.arange(3), last - 1].any(-1).all()


def test_a_batch_of_collated_clips_is_refused_with_the_function_to_use():
    with pytest.raises(ValueError, match="clip_batch"):
        stream_inputs(collate([signing_clip(1, 4)]))


# --- dropout --------------------------------------------------------------------------------------


def dropped(rate, features, seed=0):
    with scoped_seed(seed, CPU):
        return FeatureDropout(rate).train()(features)


def test_a_feature_is_lost_in_all_frames_of_a_clip_or_scaled_in_all():
    result = dropped(0.25, torch.ones(400, T, D))

    assert torch.equal(result, result[:, :1].expand_as(result))
    assert_close(result.unique(), torch.tensor([0.0, 4 / 3]))
    # 3200 draws: a standard error of 0.0077.
    assert (result == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert len(result[:, 0].unique(dim=0)) > 100  # other features in other clips


def test_the_features_of_a_whole_clip_are_dropped_too():
    result = dropped(0.25, torch.ones(400, D))

    assert_close(result.unique(), torch.tensor([0.0, 4 / 3]))


def test_dropout_draws_from_the_generator_of_its_block_alone(frames):
    before = torch.get_rng_state()

    first, again, other = (dropped(0.5, frames, seed) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_dropped_in_evaluation_or_at_rate_0(frames):
    assert FeatureDropout(0.5).eval()(frames) is frames
    assert FeatureDropout(0.0).train()(frames) is frames


# --- what every block keeps -----------------------------------------------------------------------


@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_what_frames_that_are_not_valid_hold_changes_nothing(build, frames, is_valid):
    block = with_random_values(build())
    garbage = torch.where(is_valid[..., None], frames, 1e3)

    assert_close(block(garbage, is_valid)[is_valid], block(frames, is_valid)[is_valid])


@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_padding_changes_nothing(build, frames, is_valid):
    block = with_random_values(build())
    padded = F.pad(frames, (0, 0, 0, 4), value=7.0)

    longer = block(padded, F.pad(is_valid, (0, 4)))

    assert_close(longer[:, :T][is_valid], block(frames, is_valid)[is_valid])


@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_a_block_in_training_drops_and_one_in_evaluation_does_not(build, frames, is_valid):
    block = with_random_values(build())
    plain = block(frames, is_valid)

    assert torch.equal(block(frames, is_valid), plain)
    assert not torch.equal(block.train()(frames, is_valid), plain)


# --- recurrence -----------------------------------------------------------------------------------


def plain_norm(layer, frame):
    centred = frame - frame.mean()
    return centred / (centred.pow(2).mean() + layer.eps).sqrt() * layer.weight + layer.bias


def plain_gru(layer, frames):
    """States of a GRU after every frame, one step at a time (Cho et al. 2014)."""
    state, states = torch.zeros(layer.hidden_size), []
    for frame in frames:
        of_input = (layer.weight_ih_l0 @ frame + layer.bias_ih_l0).chunk(3)
        of_state = (layer.weight_hh_l0 @ state + layer.bias_hh_l0).chunk(3)
        reset = torch.sigmoid(of_input[0] + of_state[0])
        keep = torch.sigmoid(of_input[1] + of_state[1])
        proposed = torch.tanh(of_input[2] + reset * of_state[2])
        state = (1 - keep) * proposed + keep * state
        states.append(state)
    return states


@torch.no_grad()
def test_recurrence_equals_a_loop_over_the_valid_frames_in_both_directions(frames, is_valid):
    block = with_random_values(RecurrentBlock(D, 0.5))

    result = block(frames, is_valid)

    for b in range(B):
        times = is_valid[b].nonzero()[:, 0].tolist()
        read = [plain_norm(block.norm, frames[b, t]) for t in times]
        ahead = plain_gru(block.forward_in_time, read)
        back = plain_gru(block.backward_in_time, read[::-1])[::-1]
        for t, first, second in zip(times, ahead, back, strict=True):
            assert_close(result[b, t], frames[b, t] + torch.cat([first, second]))


@torch.no_grad()
def test_a_frame_that_is_not_valid_might_as_well_be_cut_out(frames, is_valid):
    block = with_random_values(RecurrentBlock(D, 0.5))
    cut = frames[:1, is_valid[0]]

    alone = block(cut, torch.ones(1, cut.shape[1], dtype=torch.bool))

    assert_close(block(frames, is_valid)[0, is_valid[0]], alone[0])


def test_frames_are_read_in_order_and_those_not_valid_last():
    is_valid = torch.tensor([[True, False, True, True, False]])

    assert reading_order(is_valid).tolist() == [[0, 2, 3, 1, 4]]
    assert reading_order(is_valid, is_reversed=True).tolist() == [[3, 2, 0, 4, 1]]


# --- attention ------------------------------------------------------------------------------------

QUERIES = 5


@pytest.fixture
def heads(rng):
    """Queries, keys and values, not yet turned."""
    return (
        torch.randn(B, H, QUERIES, D // H, generator=rng),
        torch.randn(B, H, T, D // H, generator=rng),
        torch.randn(B, H, T, D // H, generator=rng),
    )


LOG_SCALE = torch.tensor([0.3, 1.1]).view(H, 1, 1)


def test_weights_of_turned_queries_and_keys_equal_a_plain_loop(heads, is_valid):
    query, key, _ = heads

    weights = masked_weights(*turned(query, key, LOG_SCALE), is_valid)

    assert_close(weights, plain_weights(query, key, LOG_SCALE, is_valid), rtol=1e-4, atol=1e-6)


def test_weights_times_values_make_what_attention_reads(heads, is_valid):
    query, key, value = heads
    weights = masked_weights(query, key, is_valid)

    read = masked_attention(query, key, value, is_valid)

    expected = torch.zeros_like(query)
    for b, h, i, j in itertools.product(range(B), range(H), range(QUERIES), range(T)):
        expected[b, h, i] += weights[b, h, i, j] * value[b, h, j]
    assert_close(read, expected)


def test_rows_sum_to_1_over_the_keys_and_to_0_without_any(heads, is_valid):
    query, key, value = heads
    is_valid[1] = False

    weights = masked_weights(query, key, is_valid)
    read = masked_attention(query, key, value, is_valid)

    assert_close(weights[0].sum(-1), torch.ones(H, QUERIES))
    assert not weights[0, ..., ~is_valid[0]].any()
    assert not weights[1].any()
    assert not read[1].any()
    assert read[0].any(-1).all()


def test_attention_sees_the_distance_of_frames_and_not_their_place(heads, is_valid):
    query, key, _ = heads
    later_query, later_key = (F.pad(one, (0, 0, 3, 0), value=0.5) for one in (query, key))
    later_mask = F.pad(is_valid, (3, 0))

    weights = masked_weights(*turned(query, key, LOG_SCALE), is_valid)
    shifted = masked_weights(*turned(later_query, later_key, LOG_SCALE), later_mask)
    keys_alone = masked_weights(*turned(query, later_key, LOG_SCALE), later_mask)

    assert_close(shifted[:, :, 3:, 3:], weights)
    assert not torch.allclose(keys_alone[..., 3:], weights, atol=1e-3)


def test_a_clip_without_a_key_leaves_finite_gradients(heads, is_valid):
    is_valid[1] = False
    inputs = [one.requires_grad_() for one in heads]
    query, key = turned(inputs[0], inputs[1], LOG_SCALE)

    (masked_attention(query, key, inputs[2], is_valid).sum()
     + masked_weights(query, key, is_valid).square().sum()).backward()  # fmt: skip

    gradients = [one.grad for one in inputs]
    assert all(gradient.isfinite().all() and gradient[0].any() for gradient in gradients)
    assert not any(gradient[1].any() for gradient in gradients)


@torch.no_grad()
def test_self_attention_equals_a_plain_loop(frames, is_valid):
    attention = with_random_values(RotaryAttention(D, H))
    size, projected = D // H, frames @ attention.projection.weight.T

    def of_heads(first):
        columns = (projected[..., first + h * size : first + (h + 1) * size] for h in range(H))
        return torch.stack([*columns], dim=1)

    query, key, value = (of_heads(first) for first in (0, D, 2 * D))

    weights, read = attention.weights(frames, is_valid), attention(frames, is_valid)

    expected = plain_weights(query, key, attention.log_scale, is_valid)
    assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    output = attention.output_projection
    joined = torch.cat([*(expected @ value).unbind(1)], dim=-1)
    assert_close(read, joined @ output.weight.T + output.bias, rtol=1e-4, atol=1e-5)


def test_scores_of_an_untrained_head_reach_the_root_of_its_features():
    assert_close(initial_log_scale(24, 2).exp(), torch.full((2, 1, 1), math.sqrt(12)))


def test_a_width_that_the_heads_cannot_turn_in_pairs_is_refused():
    with pytest.raises(ValueError, match=r"embed_dim \(12\) .* \(8\)"):
        RotaryAttention(12, 4)


@torch.no_grad()
def test_an_attention_block_adds_what_it_reads_and_then_its_feed_forward(frames, is_valid):
    block = with_random_values(AttentionBlock(D, H, 0.5))

    result = block(frames, is_valid)

    normed = torch.stack([plain_norm(block.norm, frame) for frame in frames.flatten(0, 1)])
    normed = normed.view_as(frames)
    between = frames + block.attention(normed, is_valid)
    for b, t in is_valid.nonzero().tolist():
        wide = block.expand.weight @ plain_norm(block.norm_feed_forward, between[b, t])
        wide = wide + block.expand.bias
        wide = wide * torch.sigmoid(wide)
        added = block.contract.weight @ wide + block.contract.bias
        assert_close(result[b, t], between[b, t] + added)


# --- convolution ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_convolution_equals_a_loop_over_the_frames_under_it(frames, is_valid, kernel_size):
    block = with_random_values(ConvolutionBlock(D, kernel_size, 0.5))

    result = block(frames, is_valid)

    def silu(x):
        return x * torch.sigmoid(x)

    for b, t in is_valid.nonzero().tolist():
        under = block.convolution.bias.clone()
        for place in range(kernel_size):
            at = t + place - kernel_size // 2
            if 0 <= at < T and is_valid[b, at]:
                read = block.expand.weight @ plain_norm(block.norm, frames[b, at])
                read = silu(read + block.expand.bias)
                under += block.convolution.weight[:, 0, 0, place] * read
        inner = silu(plain_norm(block.inner_norm, under))
        assert_close(
            result[b, t], frames[b, t] + block.contract.weight @ inner + block.contract.bias
        )


# --- pooling --------------------------------------------------------------------------------------


@torch.no_grad()
def test_pooling_is_the_mean_beside_the_average_under_the_query(frames, is_valid):
    pooling = with_random_values(ClipPooling(D, 0.5))
    attention = pooling.attention

    pooled = pooling(frames, is_valid)

    for b in range(B):
        read = [plain_norm(pooling.norm, frame) for frame in frames[b, is_valid[b]]]
        query = attention.class_query[0] / math.sqrt(D)
        shares = [math.exp(attention.key_projection.weight @ frame @ query) for frame in read]
        average = torch.stack([s * frame for s, frame in zip(shares, read, strict=True)]).sum(0)
        mean = torch.stack(read).mean(0)
        assert_close(pooled[b], torch.cat([mean, average / sum(shares)]))


@torch.no_grad()
def test_a_clip_without_a_frame_is_pooled_to_0(frames, is_valid):
    is_valid[1] = False

    pooled = with_random_values(ClipPooling(D, 0.5))(frames, is_valid)

    assert not pooled[1].any()
    assert pooled[0].all()


def test_a_query_of_zero_weighs_all_frames_alike(frames, is_valid):
    pooling = ClipPooling(D, 0.5).eval()
    nn.init.normal_(pooling.attention.key_projection.weight)

    mean, average = pooling(frames, is_valid).chunk(2, dim=-1)

    assert_close(average, mean)
