"""The consistency term against worked answers and a plain-loop version; shared invariances."""

import math
from functools import partial

import pytest
import torch
from maps import permutation_map, present, random_maps
from torch.testing import assert_close

from slrctl.core.cmcl import consistency_loss, cycle_loss, temporal_loss

T = 5
LN_1E9 = math.log(1e9)


def plain_consistency(lr, rl, left, right, temperature=1.0, divergence="kl") -> float:
    """The definition in `docs/method.md`, one number at a time."""
    per_clip = []
    for b in range(len(lr)):
        frames = [j for j in range(T) if right[b, j]]
        rows = [i for i in range(T) if left[b, i]]
        if not frames or not rows:
            continue
        total = 0.0
        for i in rows:
            forth = [max(float(lr[b, :, i, j].mean()), 1e-9) ** (1 / temperature) for j in frames]
            back = [max(float(rl[b, :, j, i].mean()), 1e-9) ** (1 / temperature) for j in frames]
            p = [value / sum(forth) for value in forth]
            q = [value / sum(back) for value in back]
            m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]

            def kl(a, b):
                return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

            total += {
                "kl": kl(p, q),
                "symmetric": (kl(p, q) + kl(q, p)) / 2,
                "js": (kl(p, m) + kl(q, m)) / 2,
            }[divergence]
        per_clip.append(total / len(rows))
    return sum(per_clip) / len(per_clip)


@pytest.mark.parametrize("divergence", ["kl", "symmetric", "js"])
@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_equals_a_plain_loop(rng, divergence, temperature, dtype):
    left = present([1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0])
    right = present([0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0])
    lr, rl = random_maps(rng, right).to(dtype), random_maps(rng, left).to(dtype)

    loss = consistency_loss(lr, rl, left, right, temperature=temperature, divergence=divergence)

    expected = plain_consistency(lr, rl, left, right, temperature, divergence)
    assert_close(loss, torch.tensor(expected, dtype=dtype), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("divergence", ["kl", "symmetric", "js"])
def test_a_doubly_stochastic_map_and_its_transpose_are_consistent(rng, temperature, divergence):
    orders = [torch.randperm(T, generator=rng) for _ in range(4)]
    lr = torch.stack([torch.eye(T)[order] for order in orders]).mean(0)[None]
    everywhere = present([1] * T)

    loss = consistency_loss(
        lr, lr.mT, everywhere, everywhere, temperature=temperature, divergence=divergence
    )

    assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_opposite_shifts_are_consistent(shift):
    everywhere = present([1] * T)

    loss = consistency_loss(
        permutation_map(shift, T), permutation_map(-shift, T), everywhere, everywhere
    )

    assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("shift", "back"), [(1, 1), (2, -1), (0, 3)])
def test_shifts_that_do_not_undo_each_other_cost_the_whole_floor(shift, back):
    everywhere = present([1] * T)

    loss = consistency_loss(
        permutation_map(shift, T), permutation_map(back, T), everywhere, everywhere
    )

    assert_close(loss, torch.tensor(LN_1E9), atol=1e-3, rtol=0)


def test_uniform_maps_cost_nothing_which_is_why_entropy_is_logged():
    uniform, everywhere = torch.full((1, T, T), 1 / T), present([1] * T)

    assert_close(
        consistency_loss(uniform, uniform, everywhere, everywhere),
        torch.tensor(0.0),
        atol=1e-6,
        rtol=0,
    )


def test_kl_is_the_published_formula_and_not_symmetric_in_the_hands(rng):
    everywhere = present([1] * T, [1] * T, [1] * T)
    lr, rl = random_maps(rng, everywhere), random_maps(rng, everywhere)

    forth = consistency_loss(lr, rl, everywhere, everywhere)
    back = consistency_loss(rl, lr, everywhere, everywhere)

    assert abs(forth - back) > 1e-3


def test_hands_that_are_never_present_together_still_contribute(rng):
    left, right = present([1, 1, 0, 0, 0]), present([0, 0, 1, 1, 0])
    lr, rl = random_maps(rng, right), random_maps(rng, left)

    assert consistency_loss(lr, rl, left, right) > 0.01


@pytest.mark.parametrize("divergence", ["kl", "symmetric", "js"])
def test_it_is_never_negative(rng, divergence):
    everywhere = torch.ones(64, T, dtype=torch.bool)
    maps = random_maps(rng, everywhere)
    nearly = maps.mT.clone()  # consistent up to rounding, where a sum may round below 0

    assert consistency_loss(maps, nearly, everywhere, everywhere, divergence=divergence) >= 0


@pytest.mark.parametrize("wrong", [{"divergence": "foo"}, {"temperature": 0.0}])
def test_a_wrong_argument_is_refused(wrong):
    everywhere = present([1] * T)

    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        consistency_loss(
            permutation_map(0, T), permutation_map(0, T), everywhere, everywhere, **wrong
        )


# The invariances below hold for every comparison of two maps.
COMPARISONS = [
    *(partial(consistency_loss, divergence=divergence) for divergence in ("kl", "symmetric", "js")),
    *(partial(temporal_loss, divergence=divergence) for divergence in ("kl", "symmetric", "js")),
    cycle_loss,
]
FORMS = [consistency_loss, cycle_loss, temporal_loss]


@pytest.mark.parametrize("term", FORMS)
def test_padding_changes_nothing(rng, term):
    left, right = present([1, 1, 0, 1, 1, 1]), present([1, 1, 1, 1, 0, 1])
    lr, rl = random_maps(rng, right), random_maps(rng, left)
    pad = (0, 3, 0, 3)
    garbage = torch.nn.functional.pad(lr, pad, value=0.7), torch.nn.functional.pad(rl, pad, value=9)
    longer = [torch.nn.functional.pad(mask, (0, 3)) for mask in (left, right)]

    assert_close(term(*garbage, *longer), term(lr, rl, left, right))


@pytest.mark.parametrize("term", FORMS)
@pytest.mark.parametrize(
    ("left", "right"), [([0] * T, [1] * T), ([1] * T, [0] * T), ([0] * T, [0] * T)]
)
def test_a_batch_without_both_hands_gives_exactly_zero_and_a_working_backward(
    rng, term, left, right
):
    lr = random_maps(rng, present(right)).requires_grad_()
    rl = random_maps(rng, present(left)).requires_grad_()

    loss = term(lr, rl, present(left), present(right))
    loss.backward()

    assert loss.item() == 0.0
    assert lr.grad is not None
    assert torch.count_nonzero(lr.grad) == 0


@pytest.mark.parametrize("term", FORMS)
def test_clips_without_a_contribution_do_not_enter_the_mean(rng, term):
    left, right = present([1] * T, [0] * T), present([1] * T, [1] * T)
    lr, rl = random_maps(rng, right), random_maps(rng, left)

    both = term(lr, rl, left, right)

    assert both > 0
    assert_close(both, term(lr[:1], rl[:1], left[:1], right[:1]))


@pytest.mark.parametrize("term", FORMS)
def test_zeros_in_the_weights_give_finite_gradients(term):
    everywhere = present([1] * T)
    lr, rl = permutation_map(1, T).requires_grad_(), permutation_map(2, T).requires_grad_()

    term(lr, rl, everywhere, everywhere).backward()

    assert lr.grad is not None
    assert rl.grad is not None
    assert torch.isfinite(lr.grad).all()
    assert torch.isfinite(rl.grad).all()


@pytest.mark.parametrize("term", COMPARISONS)
def test_gradients_match_finite_differences(rng, term):
    left = present([1, 1, 0, 1], [0] * 4, [1] * 4)
    right = present([1] * 4, [1] * 4, [0, 1, 1, 1])
    lr, rl = (
        random_maps(rng, mask, torch.float64).add(0.05).requires_grad_() for mask in (right, left)
    )

    assert torch.autograd.gradcheck(lambda *maps: term(*maps, left, right), (lr, rl))


@pytest.mark.parametrize("term", FORMS)
def test_half_precision_maps_are_compared_in_float32(rng, term):
    everywhere = present([1] * T, [1] * T, [1] * T)
    lr, rl = random_maps(rng, everywhere), random_maps(rng, everywhere)

    loss = term(lr.bfloat16(), rl.bfloat16(), everywhere, everywhere)

    assert loss.dtype == torch.float32
    assert_close(loss, term(lr, rl, everywhere, everywhere), atol=5e-3, rtol=0.02)
