"""The cycle form and the temporal extension against worked answers and plain-loop versions."""

import math

import pytest
import torch
from maps import permutation_map, present, random_maps
from torch.testing import assert_close

from slrctl.core.cmcl import cycle_loss, temporal_loss

T = 6
everywhere = present([1] * T)


def plain_cycle(lr, rl, left, right, window) -> float:
    """The definition, one walk at a time."""
    per_clip = []
    for b in range(len(lr)):
        frames = range(lr.shape[-1])
        starts = [i for i in frames if left[b, i] and right[b, i]]
        if len(starts) < 2 * window + 2:
            continue
        total = 0.0
        for i in starts:
            forth = [float(lr[b, :, i, j].mean()) * bool(right[b, j]) for j in frames]
            home = 0.0
            for j in frames:
                back = [float(rl[b, :, j, k].mean()) * bool(left[b, k]) for k in frames]
                if not sum(back):
                    continue
                near = sum(back[k] for k in frames if abs(k - i) <= window)
                home += forth[j] / sum(forth) * near / sum(back)
            total -= math.log(max(home, 1e-9))
        per_clip.append(total / len(starts))
    return sum(per_clip) / len(per_clip)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_the_cycle_equals_a_plain_loop(rng, window):
    left = present([1, 1, 0, 1, 1, 1], [1] * T, [1, 1, 1, 0, 0, 0], [1] * T)
    right = present([1, 1, 1, 1, 1, 0], [1] * T, [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1])
    lr, rl = random_maps(rng, right), random_maps(rng, left)

    loss = cycle_loss(lr, rl, left, right, window=window)

    assert_close(loss, torch.tensor(plain_cycle(lr, rl, left, right, window)))


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_any_invertible_correspondence_costs_nothing(shift):
    loss = cycle_loss(permutation_map(shift, T), permutation_map(-shift, T), everywhere, everywhere)

    assert_close(loss, torch.tensor(0.0))


def test_a_walk_that_ends_within_the_window_is_home():
    forth, back = permutation_map(2, T), permutation_map(-1, T)

    near = cycle_loss(forth, back, everywhere, everywhere, window=1)
    exact = cycle_loss(forth, back, everywhere, everywhere, window=0)

    # From the last frame the roll leads round to the first one, five frames away.
    assert_close(near, torch.tensor(math.log(1e9) / T))
    assert_close(exact, torch.tensor(math.log(1e9)))


@pytest.mark.parametrize("size", [12, 40])
def test_uniform_maps_cost_the_logarithm_of_the_frames_over_the_window(size):
    uniform, present_everywhere = torch.full((1, size, size), 1 / size), present([1] * size)

    loss = cycle_loss(uniform, uniform, present_everywhere, present_everywhere)

    # The first and the last frame have a neighbour less.
    expected = math.log(size / 3) + 2 / size * math.log(3 / 2)
    assert_close(loss, torch.tensor(expected))


@pytest.mark.parametrize(("count", "contributes"), [(3, False), (4, True)])
def test_a_clip_needs_four_frames_with_both_hands(rng, count, contributes):
    left = present([1] * count + [0] * (T - count))
    lr, rl = random_maps(rng, everywhere), random_maps(rng, left)

    assert (cycle_loss(lr, rl, left, everywhere) > 0) == contributes


def test_a_negative_window_is_refused():
    with pytest.raises(ValueError, match="window"):
        cycle_loss(permutation_map(0, T), permutation_map(0, T), everywhere, everywhere, window=-1)


def plain_one_map(weights, rows, keys, temperature) -> float:
    """The definition for one map, one number at a time; the kl divergence."""
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
def test_the_temporal_extension_equals_a_plain_loop(rng, temperature):
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


def test_uniform_maps_satisfy_the_temporal_extension():
    uniform = torch.full((1, T, T), 1 / T)

    loss = temporal_loss(uniform, uniform, everywhere, everywhere)

    assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_attention_that_stays_where_it_was_costs_the_whole_floor():
    stays = torch.zeros(1, T, T)
    stays[:, :, 3] = 1

    loss = temporal_loss(stays, stays, everywhere, everywhere)

    # Row i + 1 lies on frame 3, row i moved on lies on frame 4.
    assert_close(loss, torch.tensor(math.log(1e9)), atol=1e-3, rtol=0)


def test_a_clip_without_successive_frames_gives_zero(rng):
    every_other = present([1, 0] * 3)
    maps = random_maps(rng, every_other), random_maps(rng, every_other)

    assert temporal_loss(*maps, every_other, every_other).item() == 0.0


def test_a_clip_of_one_frame_gives_zero():
    one = torch.ones(1, 1, 1)

    assert temporal_loss(one, one, present([1]), present([1])).item() == 0.0
