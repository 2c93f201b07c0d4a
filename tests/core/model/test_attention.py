"""Attention against plain loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.attention import (
    FirstFrameAttention,
    MultiHeadAttention,
    ProbSparseAttention,
    SelfAttention,
    attention_scores,
    attention_weights,
    dropout,
    num_active_queries,
)
from slrctl.core.seeding import initialise, scoped_seed

B, T, D, H = 2, 7, 6, 3


@pytest.fixture
def frames(rng):
    return torch.randn(B, T, D, generator=rng)


@pytest.fixture
def is_valid():
    return torch.tensor([[1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)


def built(attention):
    initialise(attention, 1)
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):  # biases start at 0, where a mistake would not show
            torch.nn.init.uniform_(parameter, -1, 1, generator=torch.Generator().manual_seed(2))
    return attention.eval().requires_grad_(False)


def plain_heads(attention: MultiHeadAttention, clip: torch.Tensor):
    """Yield the scaled scores and the values of each head."""

    def project(linear):
        return clip @ linear.weight.T + linear.bias

    q, k, v = (
        project(linear)
        for linear in (
            attention.query_projection,
            attention.key_projection,
            attention.value_projection,
        )
    )
    width = D // H
    for h in range(H):
        part = slice(h * width, (h + 1) * width)
        yield q[:, part] @ k[:, part].T / math.sqrt(width), v[:, part]


def softmax_over(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def plain_attention(attention, clip, keys) -> torch.Tensor:
    columns = []
    for scores, value in plain_heads(attention, clip):
        column = torch.zeros(T, D // H)
        for i in range(T):
            weights = softmax_over([float(scores[i, j]) for j in keys])
            for weight, j in zip(weights, keys, strict=True):
                column[i] += weight * value[j]
        columns.append(column)
    output = attention.output_projection
    return torch.cat(columns, 1) @ output.weight.T + output.bias


def test_full_attention_equals_a_plain_loop(frames, is_valid):
    attention = built(SelfAttention(D, H, 0.1))

    result = attention(frames, is_valid)

    for clip in range(B):
        keys = is_valid[clip].nonzero().flatten().tolist()
        expected = plain_attention(attention.attention, frames[clip], keys)
        assert_close(result[clip], expected, atol=1e-5, rtol=1e-5)


def test_rows_sum_to_one_over_the_attended_keys_and_are_zero_elsewhere(frames, is_valid):
    weights = built(MultiHeadAttention(D, H, 0.1)).weights(frames, frames, is_valid)

    assert_close(weights.sum(-1), torch.ones(B, H, T))
    assert not weights.masked_select(~is_valid[:, None, None, :]).any()


@pytest.mark.parametrize("is_training", [True, False])
def test_without_a_key_the_message_and_the_weights_are_zero(frames, is_training):
    nothing = torch.zeros(B, T, dtype=torch.bool)
    attention = built(MultiHeadAttention(D, H, 0.1)).train(is_training)
    frames.requires_grad_()

    with scoped_seed(1, frames.device):
        messages, weights = attention(frames, frames, nothing, return_weights=True)
    messages.sum().backward()

    assert not messages.any()
    assert not weights.any()
    assert torch.isfinite(frames.grad).all()


def test_first_frame_attention_gives_every_frame_the_output_at_frame_0(frames, is_valid):
    attention = built(FirstFrameAttention(D, H, 0.1))

    result = attention(frames, is_valid)

    for clip in range(B):
        keys = is_valid[clip].nonzero().flatten().tolist()
        expected = plain_attention(attention.attention, frames[clip], keys)[0]
        assert_close(result[clip], expected.expand(T, D), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("frames", "active"), [(1, 0), (2, 2), (7, 7), (11, 11), (20, 15), (30, 20), (204, 30)]
)
def test_prob_attention_lets_five_times_the_log_of_the_frames_attend(frames, active):
    assert num_active_queries(torch.tensor([frames])).tolist() == [active]


def test_prob_attention_equals_a_plain_loop_at_evaluation(rng):
    length, padded = 30, 33  # 20 of the 30 queries attend
    frames = torch.randn(1, padded, D, generator=rng)
    is_valid = (torch.arange(padded) < length)[None]
    attention = built(ProbSparseAttention(D, H, 0.1))

    result = attention(frames, is_valid)[0, :length]

    columns = []
    for scores, value in plain_heads(attention.attention, frames[0, :length]):
        peaks = [float(row.max() - row.mean()) for row in scores]
        active = sorted(range(length), key=lambda i: -peaks[i])[:20]
        column = value.mean(0).repeat(length, 1)
        for i in active:
            column[i] = torch.tensor(softmax_over(scores[i].tolist())) @ value
        columns.append(column)
    output = attention.attention.output_projection
    expected = torch.cat(columns, 1) @ output.weight.T + output.bias
    assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_prob_attention_samples_keys_in_training_only(rng):
    frames = torch.randn(1, 40, D, generator=rng)
    is_valid = torch.ones(1, 40, dtype=torch.bool)
    attention = built(ProbSparseAttention(D, H, 0.0))

    torch.manual_seed(1)
    first = attention(frames, is_valid)
    second = attention(frames, is_valid)
    attention.train()
    third, fourth = attention(frames, is_valid), attention(frames, is_valid)

    assert torch.equal(first, second)
    assert not torch.equal(third, fourth)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"embed_dim \(42\) must be divisible by num_heads \(5\)"):
        MultiHeadAttention(42, 5, 0.0)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_clip_is_the_same_beside_one_that_lacks_a_frame(frames, is_training):
    attention = built(MultiHeadAttention(D, H, 1e-9)).train(is_training)
    lacks_one = torch.ones(B, T, dtype=torch.bool)
    lacks_one[1, 2] = False

    with scoped_seed(1, frames.device):
        alone, weights = attention(frames[:1], frames[:1], lacks_one[:1], return_weights=True)
        beside, of_both = attention(frames, frames, lacks_one, return_weights=True)

    assert_close(alone[0], beside[0], atol=1e-6, rtol=0)
    assert_close(weights[0], of_both[0], atol=1e-6, rtol=0)


def test_a_key_that_is_masked_may_hold_anything(frames, is_valid):
    attention = built(MultiHeadAttention(D, H, 0.0))
    elsewhere = torch.where(is_valid[..., None], frames, 1e4)

    def outcome(keys):
        weights = attention.weights(frames, keys, is_valid)
        return torch.cat([attention(frames, keys, is_valid)[0].flatten(), weights.flatten()])

    assert torch.equal(outcome(frames), outcome(elsewhere))


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_weights_sum_to_one_however_large_the_scores(frames, is_valid, size):
    scores = attention_scores(size * frames, size * frames, H)

    weights = attention_weights(scores, is_valid)

    assert_close(weights.sum(-1), torch.ones(B, H, T), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_match_finite_differences(frames, is_valid, rate):
    attention = built(MultiHeadAttention(D, H, rate)).double().train().requires_grad_()

    def call(queries, keys, *parameters):
        with scoped_seed(1, frames.device):
            return attention(queries, keys, is_valid, return_weights=True)

    queries, keys = (x.double().requires_grad_() for x in (frames[:, :3], frames))
    assert torch.autograd.gradcheck(call, (queries, keys, *attention.parameters()))


def test_dropout_of_weights_keeps_their_mean(rng):
    frames, length = torch.randn(1, 400, D, generator=rng), 400
    attention = built(MultiHeadAttention(D, H, 0.2))
    everywhere = torch.ones(1, length, dtype=torch.bool)
    expected, _ = attention(frames, frames, everywhere)

    with scoped_seed(1, frames.device):
        messages, _ = attention.train()(frames, frames, everywhere)

    assert not torch.equal(messages, expected)
    assert_close(messages.mean(1), expected.mean(1), atol=0.01, rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_scales_up_the_rest(dtype):
    features = torch.ones(1000, 1000, dtype=dtype, requires_grad=True)

    with scoped_seed(1, features.device):
        result = dropout(features, 0.25, is_training=True)
    result.sum().backward()

    deviation = (0.25 * 0.75 / 1e6) ** 0.5
    assert result.dtype == dtype
    assert_close(result.unique().float(), torch.tensor([0, 4 / 3]), atol=1e-2, rtol=0)
    assert abs((result == 0).double().mean().item() - 0.25) < 4 * deviation
    assert_close(features.grad, result.detach())


def test_dropout_follows_the_seed_of_its_scope():
    def drawn(seed):
        with scoped_seed(seed, torch.device("cpu")):
            return dropout(torch.ones(50, 50), 0.5, is_training=True)

    before = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("rate", "is_training"), [(0.5, False), (0.0, True)])
def test_nothing_is_dropped_at_evaluation_or_at_rate_0(rate, is_training):
    features = torch.ones(8)

    assert torch.equal(dropout(features, rate, is_training), features)
