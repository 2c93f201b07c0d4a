"""The contrastive form of alignment against worked answers and a plain-loop version."""

import math

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import contrastive_loss

B, D = 5, 4
target = torch.tensor([0, 1, 0, 2, 1])


def plain_contrastive(left, right, body, labels, has_left, has_right, temperature) -> float:
    """SPEC section 5, one clip and one pair at a time."""

    def cosine(a, b):
        dot = sum(float(x * y) for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))

    def one_way(one, other, b, negatives):
        scores = {k: math.exp(cosine(one[b], other[k]) / temperature) for k in (b, *negatives)}
        return -math.log(scores[b] / sum(scores.values()))

    per_clip = []
    clips = range(len(left))
    for b in clips:
        terms = []
        for one, other, there in (
            (left, right, [bool(has_left[k] and has_right[k]) for k in clips]),
            (left, body, [bool(has_left[k]) for k in clips]),
            (right, body, [bool(has_right[k]) for k in clips]),
        ):
            negatives = [k for k in clips if there[k] and labels[k] != labels[b]]
            if there[b] and negatives:
                both_ways = one_way(one, other, b, negatives) + one_way(other, one, b, negatives)
                terms.append(both_ways / 2)
        if terms:
            per_clip.append(sum(terms) / len(terms))
    return sum(per_clip) / len(per_clip)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_it_equals_a_plain_loop(rng, temperature):
    left, right, body = torch.randn(3, B, D, generator=rng)
    has_left = torch.tensor([True, True, False, False, True])
    has_right = torch.tensor([True, False, True, False, True])

    loss = contrastive_loss(left, right, body, target, has_left, has_right, temperature=temperature)

    expected = plain_contrastive(left, right, body, target, has_left, has_right, temperature)
    assert_close(loss, torch.tensor(expected))


def test_constant_embeddings_cost_the_logarithm_of_all_choices():
    same = torch.ones(4, D)
    signs = torch.arange(4)

    assert_close(contrastive_loss(same, same, same, signs), torch.tensor(math.log(4)))


def test_orthogonal_clips_with_equal_streams_cost_almost_nothing():
    own = torch.eye(4)
    signs = torch.arange(4)

    expected = math.log(1 + 3 * math.exp(-1 / 0.1))

    assert_close(contrastive_loss(own, own, own, signs), torch.tensor(expected))


def test_clips_of_the_same_gloss_are_not_negatives(rng):
    left, right, body = torch.randn(3, 3, D, generator=rng)
    pair = torch.tensor([0, 1])

    with_twin = contrastive_loss(left, right, body, torch.tensor([0, 1, 0]))
    first = contrastive_loss(left[:2], right[:2], body[:2], pair)
    third = contrastive_loss(left[1:], right[1:], body[1:], pair)

    # Clip 1 sees two negatives, clips 0 and 2 only clip 1: their own terms do not see each other.
    middle = plain_contrastive(left, right, body, [0, 1, 0], [1] * 3, [1] * 3, 0.1)
    assert_close(with_twin, torch.tensor(middle))
    assert not torch.isclose(with_twin, (first + third) / 2)


@pytest.mark.parametrize("labels", [[3], [1, 1, 1]])
def test_without_a_negative_it_is_exactly_zero_with_a_working_backward(rng, labels):
    left, right, body = (
        torch.randn(len(labels), D, generator=rng, requires_grad=True) for _ in range(3)
    )

    loss = contrastive_loss(left, right, body, torch.tensor(labels))
    loss.backward()

    assert loss.item() == 0.0
    assert body.grad is not None
    assert torch.count_nonzero(body.grad) == 0


def test_a_batch_without_hands_is_exactly_zero(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)
    absent = torch.zeros(B, dtype=torch.bool)

    assert contrastive_loss(left, right, body, target, absent, absent).item() == 0.0


def test_permuted_clips_give_the_same_loss(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)
    order = torch.randperm(B, generator=rng)

    assert_close(
        contrastive_loss(left[order], right[order], body[order], target[order]),
        contrastive_loss(left, right, body, target),
    )


def test_gradients_match_finite_differences(rng):
    embeddings = [
        torch.randn(B, D, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]
    has_left = torch.tensor([True, False, True, False, True])
    has_right = torch.tensor([True, True, False, False, True])

    assert torch.autograd.gradcheck(
        lambda left, right, body: contrastive_loss(left, right, body, target, has_left, has_right),
        embeddings,
    )


def test_half_precision_embeddings_are_compared_in_float32(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)

    loss = contrastive_loss(left.bfloat16(), right.bfloat16(), body.bfloat16(), target)

    assert loss.dtype == torch.float32
    assert_close(loss, contrastive_loss(left, right, body, target), atol=0.05, rtol=0.02)


def test_a_temperature_of_zero_is_refused(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)

    with pytest.raises(ValueError, match="temperature"):
        contrastive_loss(left, right, body, target, temperature=0.0)
