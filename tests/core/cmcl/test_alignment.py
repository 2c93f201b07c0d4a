"""The alignment term against vectors at known angles."""

import math

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import alignment_loss
from slrctl.core.cmcl.alignment import mean_over_frames

B, T, D = 4, 3, 6


def at_degrees(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane, one a clip."""
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


def test_it_is_minus_the_mean_cosine_of_the_three_pairs():
    left, right, body = at_degrees(0.0), at_degrees(60.0), at_degrees(90.0)

    expected = -(math.cos(math.radians(60)) + 0.0 + math.cos(math.radians(30))) / 3

    assert_close(alignment_loss(left, right, body), torch.tensor(expected))


def test_scale_changes_nothing(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)

    assert_close(alignment_loss(5 * left, 0.1 * right, body), alignment_loss(left, right, body))


def test_a_pair_with_an_absent_hand_is_left_out():
    left, right, body = at_degrees(10.0), at_degrees(60.0), at_degrees(90.0)
    absent, there = torch.tensor([False]), torch.tensor([True])

    loss = alignment_loss(left, right, body, absent, there)

    assert_close(loss, torch.tensor(-math.cos(math.radians(30))))


def test_it_equals_a_plain_loop(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)
    has_left = torch.tensor([True, False, True, False])
    has_right = torch.tensor([True, True, False, False])

    def cosine(a, b):
        dot = sum(float(x * y) for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))

    clips = []
    for b in range(B):
        pairs = []
        if has_left[b] and has_right[b]:
            pairs.append(cosine(left[b], right[b]))
        if has_left[b]:
            pairs.append(cosine(left[b], body[b]))
        if has_right[b]:
            pairs.append(cosine(right[b], body[b]))
        if pairs:
            clips.append(sum(pairs) / len(pairs))

    loss = alignment_loss(left, right, body, has_left, has_right)

    assert_close(loss, torch.tensor(-sum(clips) / len(clips)))


def test_a_batch_without_hands_gives_exactly_zero_and_a_working_backward(rng):
    left, right, body = (torch.randn(B, D, generator=rng, requires_grad=True) for _ in range(3))
    absent = torch.zeros(B, dtype=torch.bool)

    loss = alignment_loss(left, right, body, absent, absent)
    loss.backward()

    assert loss.item() == 0.0
    assert body.grad is not None
    assert torch.count_nonzero(body.grad) == 0


def test_an_embedding_of_zeros_gives_finite_gradients(rng):
    left = torch.zeros(1, D, requires_grad=True)
    right, body = torch.randn(2, 1, D, generator=rng)

    alignment_loss(left, right, body).backward()

    assert left.grad is not None
    assert torch.isfinite(left.grad).all()


def test_other_clips_of_the_batch_do_not_enter_a_clips_term(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)

    alone = [alignment_loss(left[b : b + 1], right[b : b + 1], body[b : b + 1]) for b in range(B)]

    assert_close(alignment_loss(left, right, body), torch.stack(alone).mean())


def test_gradients_match_finite_differences(rng):
    embeddings = [
        torch.randn(B, D, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]
    has_left = torch.tensor([True, False, True, False])
    has_right = torch.tensor([True, True, False, False])

    assert torch.autograd.gradcheck(
        lambda left, right, body: alignment_loss(left, right, body, has_left, has_right), embeddings
    )


def test_frames_without_the_part_do_not_enter_its_mean():
    features = torch.tensor([[[1.0], [5.0], [99.0]], [[7.0], [7.0], [7.0]]])
    is_present = torch.tensor([[True, True, False], [False, False, False]])

    assert_close(mean_over_frames(features, is_present), torch.tensor([[3.0], [0.0]]))


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_it_spans_minus_one_to_one_for_a_pair(degrees):
    there, absent = torch.tensor([True]), torch.tensor([False])
    left, body = at_degrees(0.0), at_degrees(degrees)

    loss = alignment_loss(left, left, body, there, absent)

    assert_close(loss, torch.tensor(-math.cos(math.radians(degrees))))
