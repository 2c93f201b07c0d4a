"""Alignment by cosines against vectors at known angles, and by contrast against a plain loop."""

import math

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import alignment_loss, contrastive_loss
from slrctl.core.cmcl.alignment import mean_over_frames

B, D = 5, 6
TARGET = torch.tensor([0, 1, 0, 2, 1])
HAS_LEFT = torch.tensor([True, True, False, False, True])
HAS_RIGHT = torch.tensor([True, False, True, False, True])


def at_degrees(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane, one a clip."""
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


def cosine(a, b):
    dot = sum(float(x * y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


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
    has_left, has_right = HAS_LEFT, HAS_RIGHT

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


def test_frames_without_the_part_do_not_enter_its_mean():
    features = torch.tensor([[[1.0], [5.0], [99.0]], [[7.0], [7.0], [7.0]]])
    is_present = torch.tensor([[True, True, False], [False, False, False]])

    assert_close(mean_over_frames(features, is_present), torch.tensor([[3.0], [0.0]]))


def plain_contrastive(left, right, body, labels, has_left, has_right, temperature) -> float:
    """The definition, one clip and one pair at a time."""

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
def test_the_contrastive_form_equals_a_plain_loop(rng, temperature):
    left, right, body = torch.randn(3, B, D, generator=rng)
    clips = left, right, body, TARGET, HAS_LEFT, HAS_RIGHT

    loss = contrastive_loss(*clips, temperature=temperature)

    expected = plain_contrastive(*clips, temperature)
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


def test_permuted_clips_give_the_same_loss(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)
    order = torch.randperm(B, generator=rng)

    assert_close(
        contrastive_loss(left[order], right[order], body[order], TARGET[order]),
        contrastive_loss(left, right, body, TARGET),
    )


def test_a_temperature_of_zero_is_refused(rng):
    left, right, body = torch.randn(3, B, D, generator=rng)

    with pytest.raises(ValueError, match="temperature"):
        contrastive_loss(left, right, body, TARGET, temperature=0.0)


def cosine_form(left, right, body, *hands):
    return alignment_loss(left, right, body, *hands)


def contrastive_form(left, right, body, *hands):
    return contrastive_loss(left, right, body, TARGET, *hands)


FORMS = [cosine_form, contrastive_form]


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_hands_gives_exactly_zero_and_a_working_backward(rng, form):
    left, right, body = (torch.randn(B, D, generator=rng, requires_grad=True) for _ in range(3))
    absent = torch.zeros(B, dtype=torch.bool)

    loss = form(left, right, body, absent, absent)
    loss.backward()

    assert loss.item() == 0.0
    assert body.grad is not None
    assert torch.count_nonzero(body.grad) == 0


@pytest.mark.parametrize("form", FORMS)
def test_gradients_match_finite_differences(rng, form):
    embeddings = [
        torch.randn(B, D, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]

    assert torch.autograd.gradcheck(
        lambda *streams: form(*streams, HAS_LEFT, HAS_RIGHT), embeddings
    )


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_embeddings_are_compared_in_float32(rng, form):
    streams = torch.randn(3, B, D, generator=rng)

    loss = form(*streams.bfloat16())

    assert loss.dtype == torch.float32
    assert_close(loss, form(*streams), atol=0.05, rtol=0.02)
