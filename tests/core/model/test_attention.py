"""Attention against plain loops."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.attention import (
    FirstFrameAttention,
    MultiHeadAttention,
    ProbSparseAttention,
    SelfAttention,
    attention_weights,
    num_active_queries,
)
from slrctl.core.model.fast import plain_path
from slrctl.core.model.initial_values import initialise

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
    """Query, key and value of each head, scaled scores included, as lists of tensors."""

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
    _, weights = built(MultiHeadAttention(D, H, 0.1))(frames, frames, is_valid)

    assert_close(weights.sum(-1), torch.ones(B, H, T))
    assert not weights.masked_select(~is_valid[:, None, None, :]).any()


def test_without_a_key_the_message_and_the_weights_are_zero(frames):
    nothing = torch.zeros(B, T, dtype=torch.bool)
    attention = built(MultiHeadAttention(D, H, 0.1))
    frames.requires_grad_()

    messages, weights = attention(frames, frames, nothing)
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


def test_a_mask_that_hides_nothing_changes_no_bit(rng):
    scores = torch.randn(B, H, T, T, generator=rng, requires_grad=True)
    gradient = torch.randn(B, H, T, T, generator=rng)

    masked = attention_weights(scores, torch.ones(B, T, dtype=torch.bool))
    plain = attention_weights(scores, None)

    assert torch.equal(masked, plain)
    (of_masked,) = torch.autograd.grad(masked, scores, gradient)
    (of_plain,) = torch.autograd.grad(plain, scores, gradient)
    assert torch.equal(of_masked, of_plain)


@pytest.mark.parametrize("path", [nullcontext, plain_path])
def test_a_clip_with_all_its_frames_is_the_same_beside_one_without(frames, path):
    attention = built(MultiHeadAttention(D, H, 0.0))
    lacks_one = torch.ones(B, T, dtype=torch.bool)
    lacks_one[1, 2] = False

    with path():
        alone, weights = attention(frames[:1], frames[:1], lacks_one[:1])
        beside, of_both = attention(frames, frames, lacks_one)

    assert_close(alone[0], beside[0], atol=1e-6, rtol=0)
    assert_close(weights[0], of_both[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("path", [nullcontext, plain_path])
def test_clips_without_frames_say_nothing(frames, path):
    attention = built(MultiHeadAttention(D, H, 0.0))

    with path():
        messages, _ = attention(frames, frames[:, :0], torch.ones(B, 0, dtype=torch.bool))

    assert torch.equal(messages, torch.zeros(B, T, D))
