"""The cycle form of consistency against worked answers and a plain-loop version."""

import math

import pytest
import torch
from maps import permutation_map, present, random_maps
from torch.testing import assert_close

from slrctl.core.cmcl import cycle_loss

T = 6
everywhere = present([1] * T)


def plain_cycle(lr, rl, left, right, window) -> float:
    """SPEC section 5, one walk at a time."""
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
def test_it_equals_a_plain_loop(rng, window):
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


@pytest.mark.parametrize(("left", "right"), [([0] * T, [1] * T), ([1] * T, [0] * T)])
def test_a_batch_without_both_hands_gives_exactly_zero_and_a_working_backward(rng, left, right):
    lr = random_maps(rng, present(right)).requires_grad_()
    rl = random_maps(rng, present(left)).requires_grad_()

    loss = cycle_loss(lr, rl, present(left), present(right))
    loss.backward()

    assert loss.item() == 0.0
    assert lr.grad is not None
    assert torch.count_nonzero(lr.grad) == 0


def test_padding_changes_nothing(rng):
    left, right = present([1, 1, 0, 1, 1, 1]), present([1] * T)
    lr, rl = random_maps(rng, right), random_maps(rng, left)
    pad = (0, 3, 0, 3)
    garbage = torch.nn.functional.pad(lr, pad, value=0.7), torch.nn.functional.pad(rl, pad, value=9)
    longer = [torch.nn.functional.pad(mask, (0, 3)) for mask in (left, right)]

    assert_close(cycle_loss(*garbage, *longer), cycle_loss(lr, rl, left, right))


def test_gradients_match_finite_differences(rng):
    left = present([1, 1, 0, 1, 1, 1], [0] * T, [1] * T)
    right = present([1] * T, [1] * T, [0, 1, 1, 1, 1, 1])
    lr, rl = (
        random_maps(rng, mask, torch.float64).add(0.05).requires_grad_() for mask in (right, left)
    )

    assert torch.autograd.gradcheck(
        lambda forth, back: cycle_loss(forth, back, left, right), (lr, rl)
    )


def test_zeros_in_the_weights_give_finite_gradients():
    lr, rl = permutation_map(1, T).requires_grad_(), permutation_map(2, T).requires_grad_()

    cycle_loss(lr, rl, everywhere, everywhere).backward()

    assert lr.grad is not None
    assert torch.isfinite(lr.grad).all()


def test_half_precision_maps_are_walked_in_float32(rng):
    lr, rl = random_maps(rng, everywhere), random_maps(rng, everywhere)

    loss = cycle_loss(lr.bfloat16(), rl.bfloat16(), everywhere, everywhere)

    assert loss.dtype == torch.float32
    assert_close(loss, cycle_loss(lr, rl, everywhere, everywhere), atol=5e-3, rtol=0.02)


def test_a_negative_window_is_refused():
    with pytest.raises(ValueError, match="window"):
        cycle_loss(permutation_map(0, T), permutation_map(0, T), everywhere, everywhere, window=-1)
