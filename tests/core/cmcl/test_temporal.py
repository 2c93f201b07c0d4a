"""The temporal extension against worked answers and a plain-loop version."""

import math

import pytest
import torch
from maps import permutation_map, present, random_maps
from torch.testing import assert_close

from slrctl.core.cmcl import temporal_loss

T = 6
everywhere = present([1] * T)


def plain_one_map(weights, rows, keys, temperature) -> float:
    """One map of SPEC section 5, one number at a time; the kl divergence."""
    per_clip = []
    for b in range(len(weights)):
        support = [j for j in range(1, T) if keys[b, j] and keys[b, j - 1]]
        pairs = [i for i in range(T - 1) if rows[b, i] and rows[b, i + 1]]
        if not support or not pairs:
            continue
        total = 0.0
        for i in pairs:
            later = [max(float(weights[b, :, i + 1, j].mean()), 1e-9) for j in support]
            moved = [max(float(weights[b, :, i, j - 1].mean()), 1e-9) for j in support]
            later, moved = ([x ** (1 / temperature) for x in row] for row in (later, moved))
            p = [x / sum(later) for x in later]
            q = [x / sum(moved) for x in moved]
            total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
        per_clip.append(total / len(pairs))
    return sum(per_clip) / len(per_clip) if per_clip else 0.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_equals_a_plain_loop(rng, temperature):
    left = present([1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1], [0] * T, [1, 0, 1, 0, 1, 0])
    right = present([0, 1, 1, 1, 0, 0], [1] * T, [1] * T, [1] * T)
    lr, rl = random_maps(rng, right), random_maps(rng, left)

    loss = temporal_loss(lr, rl, left, right, temperature=temperature)

    forth = plain_one_map(lr, left, right, temperature)
    back = plain_one_map(rl, right, left, temperature)
    assert_close(loss, torch.tensor((forth + back) / 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_constant_lag_costs_nothing_where_it_stays_within_the_clip(shift):
    size = 9
    forth, back = permutation_map(shift, size), permutation_map(-shift, size)
    # A roll wraps round at the ends; those rows are left out.
    rows = present([int(shift <= i < size - shift) for i in range(size)])

    loss = temporal_loss(forth, back, rows, present([1] * size))
    only_forth = temporal_loss(forth, forth, rows, present([0] * size))

    assert_close(loss, torch.tensor(0.0), atol=1e-5, rtol=0)
    assert only_forth.item() == 0.0


def test_uniform_maps_cost_nothing():
    uniform = torch.full((1, T, T), 1 / T)

    loss = temporal_loss(uniform, uniform, everywhere, everywhere)

    assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_attention_that_stays_where_it_was_costs_the_whole_floor():
    stays = torch.zeros(1, T, T)
    stays[:, :, 3] = 1

    loss = temporal_loss(stays, stays, everywhere, everywhere)

    # Row i + 1 lies on frame 3, row i moved on lies on frame 4.
    assert_close(loss, torch.tensor(math.log(1e9)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("left", "right"), [([0] * T, [1] * T), ([1, 0] * 3, [1, 0] * 3)])
def test_without_successive_frames_it_is_exactly_zero_with_a_working_backward(rng, left, right):
    lr = random_maps(rng, present(right)).requires_grad_()
    rl = random_maps(rng, present(left)).requires_grad_()

    loss = temporal_loss(lr, rl, present(left), present(right))
    loss.backward()

    assert loss.item() == 0.0
    assert lr.grad is not None
    assert torch.count_nonzero(lr.grad) == 0


def test_a_clip_of_one_frame_gives_zero():
    one = torch.ones(1, 1, 1)

    assert temporal_loss(one, one, present([1]), present([1])).item() == 0.0


def test_padding_changes_nothing(rng):
    left, right = present([1, 1, 0, 1, 1, 1]), present([1, 1, 1, 1, 0, 1])
    lr, rl = random_maps(rng, right), random_maps(rng, left)
    pad = (0, 3, 0, 3)
    garbage = torch.nn.functional.pad(lr, pad, value=0.7), torch.nn.functional.pad(rl, pad, value=9)
    longer = [torch.nn.functional.pad(mask, (0, 3)) for mask in (left, right)]

    assert_close(temporal_loss(*garbage, *longer), temporal_loss(lr, rl, left, right))


@pytest.mark.parametrize("divergence", ["kl", "symmetric", "js"])
def test_gradients_match_finite_differences(rng, divergence):
    left = present([1, 1, 0, 1, 1, 1], [0] * T, [1] * T)
    right = present([1] * T, [1] * T, [0, 1, 1, 1, 1, 1])
    lr, rl = (
        random_maps(rng, mask, torch.float64).add(0.05).requires_grad_() for mask in (right, left)
    )

    assert torch.autograd.gradcheck(
        lambda forth, back: temporal_loss(
            forth, back, left, right, temperature=1.5, divergence=divergence
        ),
        (lr, rl),
    )


def test_half_precision_maps_are_compared_in_float32(rng):
    lr, rl = random_maps(rng, everywhere), random_maps(rng, everywhere)

    loss = temporal_loss(lr.bfloat16(), rl.bfloat16(), everywhere, everywhere)

    assert loss.dtype == torch.float32
    assert_close(loss, temporal_loss(lr, rl, everywhere, everywhere), atol=5e-3, rtol=0.02)
