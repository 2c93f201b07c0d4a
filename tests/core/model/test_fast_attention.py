"""The attention of the fast path against the plain one."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import CrossModalConsistencyLoss, consistency_loss
from slrctl.core.model import SiFormer, fast
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.encoder import FeedForward
from slrctl.core.model.fast.kernels import attention as kernels
from slrctl.core.model.fast.random_words import draw_masks
from slrctl.core.model.fusion import DirectedAttention
from slrctl.core.model.residual import residual
from slrctl.core.seeding import scoped_seed
from slrctl.settings import CMCLSettings

B, Q, T, D, H = 3, 5, 7, 12, 3


@pytest.fixture
def is_attended():
    """All keys of the first clip, none of the second's, some of the third's."""
    return torch.tensor([[1] * T, [0] * T, [0, 1, 1, 0, 1, 0, 0]], dtype=torch.bool)


@pytest.fixture
def attention(rng):
    attention = MultiHeadAttention(D, H, 0.2)
    for parameter in attention.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=rng)
    return attention


def outcome(attention, queries, keys, is_attended, weights_of_maps):
    """Messages, maps, and the gradients of both."""
    attention.zero_grad()
    queries, keys = (x.clone().requires_grad_() for x in (queries, keys))
    torch.manual_seed(3)
    messages, maps = attention(queries, keys, is_attended)
    (messages.square().sum() + (maps * weights_of_maps).sum()).backward()
    gradients = [parameter.grad for parameter in attention.parameters()]
    return [messages.detach(), maps.detach(), queries.grad, keys.grad, *gradients]


def assert_equal_to_the_plain_path(attention, *given):
    results = outcome(attention, *given)
    with fast.plain_path():
        expected = outcome(attention, *given)

    # The gradient of a key's bias is 0 but for rounding, so its own size says nothing.
    largest = max(reference.abs().max().item() for reference in expected)
    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=1e-5 * largest, rtol=1e-4)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("size", [1.0, 6.0])  # at 6 rows exceed the bound
def test_it_equals_the_plain_path_with_the_same_draws(
    attention, is_attended, rng, is_training, size
):
    attention.train(is_training)
    queries, keys = (size * torch.randn(B, n, D, generator=rng) for n in (Q, T))
    weights_of_maps = torch.randn(B, H, Q, T, generator=rng)

    assert_equal_to_the_plain_path(attention, queries, keys, is_attended, weights_of_maps)


def test_a_last_key_that_is_longer_than_all_others_counts_in_the_bound_of_scores(attention, rng):
    attention.eval()
    queries, keys = (
        8 * torch.randn(1, Q, D, generator=rng),
        1e-3 * torch.randn(1, 9, D, generator=rng),
    )
    keys[0, 6] = 60 * torch.randn(D, generator=rng)
    is_attended = torch.tensor([[0, 1, 1, 0, 1, 0, 1, 0, 0]], dtype=torch.bool)
    weights_of_maps = torch.randn(1, H, Q, 9, generator=rng)

    assert_equal_to_the_plain_path(attention, queries, keys, is_attended, weights_of_maps)


@pytest.mark.parametrize("num_frames", [T, 300])
def test_what_is_read_through_a_linear_map_equals_the_plain_path(rng, num_frames):
    reader = DirectedAttention(D, 8, H, 0.2).train()
    own, other = (torch.randn(B, num_frames, n, generator=rng) for n in (D, 8))
    is_present = torch.rand(B, num_frames, generator=rng) > 0.3

    def read():
        reader.zero_grad()
        inputs = [x.clone().requires_grad_() for x in (own, other)]
        with scoped_seed(1, own.device):
            messages, _ = reader(*inputs, is_present, return_attention=False)
        messages.square().sum().backward()
        return [messages.detach(), *(x.grad for x in (*inputs, *reader.parameters()))]

    results = read()
    with fast.plain_path():
        expected = read()

    largest = max(reference.abs().max().item() for reference in expected)
    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=1e-5 * largest, rtol=1e-4)


@pytest.mark.parametrize("size", [6.0, 20.0])
def test_where_a_key_has_it_all_gradients_are_as_exact_as_on_the_plain_path(
    attention, is_attended, rng, size
):
    # The kernels of the two ways round scores in two ways, which at these sizes weights would show.
    attention.eval()
    queries, keys = (size * torch.randn(B, n, D, generator=rng) for n in (Q, T))
    given = queries, keys, is_attended, torch.randn(B, H, Q, T, generator=rng)

    results = outcome(attention, *given)
    with fast.plain_path():
        plain = outcome(attention, *given)
    exact = outcome(
        attention.double(), *(x.double() if x.is_floating_point() else x for x in given)
    )

    largest = max(one.abs().max().item() for one in exact)
    for one, other, reference in zip(results, plain, exact, strict=True):
        error, usual = ((it - reference).abs().max().item() for it in (one, other))
        assert error <= 3 * usual + 1e-6 * largest


def test_without_a_key_messages_and_weights_are_zero(attention, is_attended, rng):
    queries, keys = (torch.randn(B, n, D, generator=rng) for n in (Q, T))

    messages, maps = attention(queries, keys, is_attended)

    assert not messages[1].any()
    assert not maps[1].any()


def test_leaving_the_weights_out_changes_no_bit(attention, is_attended, rng):
    queries, keys = (torch.randn(B, n, D, generator=rng) for n in (Q, T))

    torch.manual_seed(1)
    asked, _ = attention(queries, keys, is_attended, return_weights=True)
    torch.manual_seed(1)
    alone, nothing = attention(queries, keys, is_attended, return_weights=False)

    assert nothing is None
    assert torch.equal(asked, alone)


@pytest.mark.slow
def test_the_gradients_of_the_plain_path_match_finite_differences(attention, is_attended, rng):
    attention.double().train()

    def call(queries, keys, *parameters):
        torch.manual_seed(1)
        return attention(queries, keys, is_attended)

    queries, keys = (
        torch.randn(B, n, D, generator=rng, dtype=torch.float64, requires_grad=True) for n in (Q, T)
    )
    assert torch.autograd.gradcheck(call, (queries, keys, *attention.parameters()))


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (1, 40), (8, 16), (9, 17), (33, 3)])
def test_heads_of_any_width_and_clips_of_any_length_equal_the_plain_path(
    rng, heads, num_queries, num_keys
):
    attention = MultiHeadAttention(D, heads, 0.2)
    queries, keys = (torch.randn(2, n, D, generator=rng) for n in (num_queries, num_keys))
    is_attended = torch.rand(2, num_keys, generator=rng) > 0.3
    weights_of_maps = torch.randn(2, heads, num_queries, num_keys, generator=rng)

    assert_equal_to_the_plain_path(attention, queries, keys, is_attended, weights_of_maps)


@pytest.mark.parametrize("heads", [1, 2])
def test_heads_wider_than_a_vector_equal_the_plain_path(rng, heads):
    attention = MultiHeadAttention(66, heads, 0.2)
    queries, keys = (torch.randn(2, n, 66, generator=rng) for n in (19, 35))
    is_attended = torch.rand(2, 35, generator=rng) > 0.3
    given = queries, keys, is_attended, torch.randn(2, heads, 19, 35, generator=rng)

    assert_equal_to_the_plain_path(attention, *given)


def test_a_key_that_is_not_attended_to_may_hold_anything(attention, is_attended, rng):
    attention.eval()
    queries, keys = (torch.randn(B, n, D, generator=rng) for n in (Q, T))
    elsewhere = torch.where(is_attended[..., None], keys, 1e4)

    for one, other in zip(
        attention(queries, keys, is_attended),
        attention(queries, elsewhere, is_attended),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("num_attended", [0, 1, 2, 15, 17, 40])
def test_keys_that_are_not_attended_to_change_no_bit_of_what_kernels_compute(num_attended):
    draws = np.random.default_rng(num_attended)
    places = np.sort(draws.permutation(50)[:num_attended])
    is_attended = np.zeros((1, 50), bool)
    is_attended[:, places] = True
    keys = draws.standard_normal((1, 50, 2 * D), np.float32)

    among_others = attend_and_back(keys, is_attended)
    alone = attend_and_back(keys[:, places], np.ones((1, num_attended), bool))

    assert np.array_equal(among_others.heads, alone.heads)
    assert np.array_equal(among_others.maps[..., places], alone.maps)
    assert np.array_equal(among_others.of_query, alone.of_query)
    assert np.array_equal(among_others.of_keys[:, places], alone.of_keys)
    for of_all in among_others.maps, among_others.of_keys.swapaxes(1, 2):
        assert not of_all[..., ~is_attended[0]].any()


class Written(NamedTuple):
    """What kernels write for given keys and values, and 21 queries."""

    heads: np.ndarray
    maps: np.ndarray
    of_query: np.ndarray
    of_keys: np.ndarray


def attend_and_back(keys, is_attended):
    draws = np.random.default_rng(0)
    query, of_heads = draws.standard_normal((2, 1, 21, D), np.float32)
    maps = np.empty((1, H, 21, keys.shape[1]), np.float32)
    offsets = np.empty((1, H, 21), np.float32)
    heads, of_query, of_keys = (np.full_like(one, np.nan) for one in (query, query, keys))
    options = (0, 0, 0), (H, D // H), is_attended, False, tuple(draw_masks(1, 1, 0.0))
    kernels.attend(query, keys, *options, heads, offsets, maps)
    no_maps = np.empty((0, 0, 0, 0), np.float32)
    kernels.attend_back(query, keys, *options, offsets, of_heads, no_maps, of_query, of_keys)
    return Written(heads, maps, of_query, of_keys)


def test_a_number_that_is_none_is_not_hidden(attention, is_attended, rng):
    queries, keys = (torch.randn(B, n, D, generator=rng) for n in (Q, T))
    queries[0, 2, 3] = torch.nan

    messages, maps = attention(queries, keys, is_attended)

    assert messages[0, 2].isnan().all()
    assert maps[0, :, 2].isnan().any(-1).all()
    assert messages[0, :2].isfinite().all()


@pytest.mark.parametrize("is_in_maps", [False, True])
def test_a_number_that_is_none_stays_with_its_clip_on_the_way_back(attention, rng, is_in_maps):
    queries, keys = (torch.randn(B, n, D, generator=rng) for n in (Q, T))
    of_maps = torch.ones(B, H, Q, T)
    (of_maps if is_in_maps else queries)[0] = torch.nan
    everywhere = torch.ones(B, T, dtype=torch.bool)

    _, _, of_queries, of_keys, *_ = outcome(attention, queries, keys, everywhere, of_maps)

    assert of_queries[0].isnan().all()
    assert of_queries[1:].isfinite().all()
    assert of_keys[1:].isfinite().all()


@pytest.mark.parametrize("score", [-128.3, -300.0])
def test_where_all_scores_are_far_below_zero_gradients_equal_the_plain_path(rng, score):
    # In powers of 2; 17 queries, so that the last is alone in lanes that others have used.
    root = (-score * math.log(2) / (D // H) * math.sqrt(D // H)) ** 0.5
    attention = MultiHeadAttention(D, H, 0.0)
    for linear, factor in ((attention.query_projection, -root), (attention.key_projection, root)):
        linear.weight.data, linear.bias.data = factor * torch.eye(D), torch.zeros(D)
    queries, keys = torch.ones(B, 17, D), torch.ones(B, T, D)
    everywhere = torch.ones(B, T, dtype=torch.bool)
    given = queries, keys, everywhere, torch.randn(B, H, 17, T, generator=rng)

    assert_equal_to_the_plain_path(attention, *given)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_scores_of_any_size_give_finite_weights_that_sum_to_one(attention, rng, scale):
    frames = scale * torch.randn(B, T, D, generator=rng)
    everywhere = torch.ones(B, T, dtype=torch.bool)

    messages, maps = attention(frames, frames, everywhere)

    assert torch.isfinite(messages).all()
    assert_close(maps.sum(-1), torch.ones(B, H, T), atol=1e-4, rtol=0)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_whole_model_and_its_loss_equal_those_of_the_plain_path(
    tiny_settings, batch, num_classes, is_training
):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).train(is_training)
    loss = CrossModalConsistencyLoss(CMCLSettings(lambda_consistency=0.1, lambda_alignment=0.05))

    def gradients():
        model.zero_grad()
        torch.manual_seed(5)
        total = loss(model(batch, return_hand_attention=True, return_features=True), batch).total
        total.backward()
        return total.detach(), {name: p.grad for name, p in model.named_parameters()}

    total, by_name = gradients()
    with fast.plain_path():
        expected_total, expected = gradients()

    assert_close(total, expected_total, atol=1e-5, rtol=1e-5)
    assert_close(by_name, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_stream_that_attends_to_itself_equals_the_plain_path(rng, is_training):
    attention = MultiHeadAttention(15, 3, 0.2).train(is_training)
    frames = torch.randn(B, T, 15, generator=rng)
    is_valid = torch.arange(T) < torch.tensor([[T], [4], [0]])
    weights_of_messages = torch.randn(B, T, 15, generator=rng)

    def gradients():
        torch.manual_seed(3)
        own = frames.clone().requires_grad_()
        messages, _ = attention(own, own, is_valid, return_weights=False)
        total = (messages * weights_of_messages).sum()
        return [messages, *torch.autograd.grad(total, [own, *attention.parameters()])]

    results = gradients()
    with fast.plain_path():
        expected = gradients()

    largest = max(reference.abs().max().item() for reference in expected)
    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=1e-5 * largest, rtol=1e-4)


@pytest.mark.parametrize("name", ["attention", "feed-forward", "residual", "consistency"])
def test_a_second_derivative_is_refused_where_none_is_computed(rng, name):
    frames = torch.randn(B, T, D, generator=rng, requires_grad=True)
    everywhere = torch.ones(B, T, dtype=torch.bool)
    maps = (frames @ frames.mT).softmax(-1)[:, None]
    result = {
        "attention": lambda: MultiHeadAttention(D, H, 0.0)(frames, frames, everywhere)[0],
        "feed-forward": lambda: FeedForward(D, 8, 0.0)(frames),
        "residual": lambda: residual(frames, frames, torch.nn.LayerNorm(D), 0.0, True),
        "consistency": lambda: consistency_loss(maps, maps, everywhere, everywhere),
    }[name]()

    torch.autograd.grad(result.sum(), frames, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(result.sum(), frames, create_graph=True)
