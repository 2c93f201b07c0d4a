"""The fusion of the fast path, which is one function, against the plain one."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model import fast
from slrctl.core.model.fusion import (
    CrossModalAttention,
    CrossModalAttentionFusion,
    StreamPresence,
    Streams,
)
from slrctl.core.seeding import scoped_seed

B = 3
ALL = CrossModalAttention._fields
# Its gradient is 0 but for rounding, since softmax removes it.
KEY_BIAS = "key_projection.bias"


@pytest.fixture(params=[(12, 6), (42, 24)])
def fusion(request, rng):
    fusion = CrossModalAttentionFusion(*request.param, num_heads=3, dropout=0.2).train()
    for parameter in fusion.parameters():
        torch.nn.init.uniform_(parameter, -0.4, 0.4, generator=rng)
    return fusion


def widths(fusion):
    return [update.gate.out_features for update in fusion._updates()]


def given(fusion, rng, num_frames=7, size=1.0):
    """Streams, of which one hand never shows in the second clip, and weights of every result."""
    streams = Streams(
        *(size * torch.randn(B, num_frames, width, generator=rng) for width in widths(fusion))
    )
    present = StreamPresence(*(torch.rand(B, num_frames, generator=rng) > 0.3 for _ in streams))
    present.left_hand[1] = False
    weights = [torch.randn(stream.shape, generator=rng) for stream in streams]
    of_maps = [torch.randn(B, 3, num_frames, num_frames, generator=rng) for _ in ALL]
    return streams, present, [*weights, *of_maps]


def outcome(fusion, streams, present, weights, wanted=ALL):
    """The fused streams and maps, and the gradients of the streams and of every parameter."""
    fusion.zero_grad()
    streams = Streams(*(stream.detach().requires_grad_() for stream in streams))
    with scoped_seed(1, torch.device("cpu")):
        fused, maps = fusion(streams, present, wanted=wanted)
    results = [*fused, *(maps[name] for name in wanted)]
    losses = [(one * weight).sum() for one, weight in zip(results, weights, strict=False)]
    torch.stack(losses).sum().backward()
    gradients = {name: p.grad for name, p in fusion.named_parameters() if KEY_BIAS not in name}
    return [one.detach() for one in results] + [x.grad for x in streams] + [*gradients.values()]


@pytest.mark.parametrize("num_frames", [7, 300])  # at 300 products are another library's
def test_it_equals_the_plain_path_with_the_same_draws(fusion, rng, num_frames):
    situation = given(fusion, rng, num_frames)

    results = outcome(fusion, *situation)
    with fast.plain_path():
        expected = outcome(fusion, *situation)

    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=2e-5 * reference.abs().max().item(), rtol=1e-4)


# At 30 times the size a key often has it all, most gates are open or closed, and scores of some
# hundreds are rounded by as much as 1e-4.
@pytest.mark.parametrize(("size", "rounding"), [(1.0, 2e-6), (30.0, 2e-4)])
def test_it_is_as_exact_as_the_plain_path(fusion, rng, size, rounding):
    fusion.eval()
    streams, present, weights = given(fusion, rng, size=size)

    results = outcome(fusion, streams, present, weights)
    with fast.plain_path():
        plain = outcome(fusion, streams, present, weights)
    doubled = Streams(*(stream.double() for stream in streams))
    exact = outcome(fusion.double(), doubled, present, [weight.double() for weight in weights])

    for one, other, reference in zip(results, plain, exact, strict=True):
        error, usual = ((it - reference).abs().max().item() for it in (one, other))
        assert error <= 3 * usual + rounding * reference.abs().max().item() + 1e-30


def test_under_autocast_it_stays_in_float32(fusion, rng):
    situation = given(fusion, rng)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = outcome(fusion, *situation)

    for result, reference in zip(results, outcome(fusion, *situation), strict=True):
        assert torch.equal(result, reference)


def test_without_gradients_the_result_is_the_same(fusion, rng):
    streams, present, _ = given(fusion.eval(), rng)

    with torch.no_grad():
        fused, maps = fusion(streams, present)

    recorded, recorded_maps = fusion(streams, present)
    for one, other in zip(fused, recorded, strict=True):
        assert torch.equal(one, other.detach())
    for name in ALL:
        assert torch.equal(maps[name], recorded_maps[name].detach())


def test_asking_for_maps_changes_no_bit_of_the_streams(fusion, rng):
    streams, present, weights = given(fusion, rng)

    every, none = (outcome(fusion, streams, present, weights[:3], wanted) for wanted in (ALL, ()))

    for one, other in zip(every[:3], none[:3], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(every[3 + len(ALL) :], none[3:], strict=True):
        assert torch.equal(one, other)


def test_the_maps_that_are_wanted_are_given_and_no_others(fusion, rng):
    streams, present, _ = given(fusion, rng)

    for wanted in ((), ("body_to_left",), ("right_to_left", "left_to_right"), ALL):
        _, maps = fusion(streams, present, wanted=wanted)
        assert tuple(maps) == wanted


def test_a_loss_of_the_maps_alone_has_the_gradients_of_the_plain_path(fusion, rng):
    streams, present, weights = given(fusion, rng)

    def gradients():
        fusion.zero_grad()
        inputs = Streams(*(stream.clone().requires_grad_() for stream in streams))
        _, maps = fusion(inputs, present)
        (maps["left_to_right"] * weights[3]).sum().backward()
        return [x.grad for x in inputs[:2]], fusion.left_from_right.other_projection.weight.grad

    of_streams, of_weight = gradients()
    with fast.plain_path():
        of_streams_plainly, of_weight_plainly = gradients()

    assert_close(of_weight, of_weight_plainly, atol=1e-5, rtol=1e-4)
    assert_close(of_streams, of_streams_plainly, atol=1e-5, rtol=1e-4)


def test_streams_that_lie_apart_in_memory_give_the_same(fusion, rng):
    streams, present, weights = given(fusion, rng)
    apart = Streams(*torch.cat(streams, dim=-1).split(widths(fusion), dim=-1))
    assert not any(stream.is_contiguous() for stream in apart)

    together, separate = (outcome(fusion, x, present, weights) for x in (streams, apart))

    for result, reference in zip(separate, together, strict=True):
        assert torch.equal(result, reference)


def test_a_number_that_is_none_is_not_hidden(fusion, rng):
    streams, present, _ = given(fusion, rng)
    streams.right_hand[2, 4, 0] = torch.nan
    present.right_hand[2, 4] = True

    fused, _ = fusion(streams, present)

    assert fused.right_hand[2, 4].isnan().all()
    assert fused.body[2].isnan().all()
    assert not any(stream[:2].isnan().any() for stream in fused)


def test_weights_that_are_not_trained_get_no_gradient(fusion, rng):
    streams, present, _ = given(fusion, rng)
    fusion.update_body.requires_grad_(False)

    fused, _ = fusion(streams, present)
    fused.body.sum().backward()

    assert fusion.update_body.gate.weight.grad is None
    assert fusion.body_from_left.attention.query_projection.weight.grad.any()


def test_each_direction_drops_as_it_is_told(fusion, rng):
    situation = given(fusion, rng)
    fusion.body_from_left.attention.dropout = 0.6
    fusion.right_from_body.eval()

    results = outcome(fusion, *situation)
    with fast.plain_path():
        expected = outcome(fusion, *situation)

    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=2e-5 * reference.abs().max().item(), rtol=1e-4)


def test_no_clips_give_nothing(fusion):
    streams = Streams(*(torch.empty(0, 7, width) for width in widths(fusion)))

    fused, maps = fusion(streams, StreamPresence(*(torch.empty(0, 7).bool() for _ in streams)))

    assert [stream.shape for stream in fused] == [stream.shape for stream in streams]
    assert maps["left_to_right"].shape == (0, 3, 7, 7)
