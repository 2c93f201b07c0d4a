"""Explanations against the computations they describe."""

import math
from typing import cast

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.attention import join_heads, split_heads
from slrctl.core.model.build import build_model
from slrctl.core.model.explain import explain
from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.transformer import DecoderLayer, EncoderLayer

KINDS = ["full", "prob", "first_frame"]


def build(settings, *, seed=3, **changes):
    return build_model(settings.model.model_copy(update=changes), 4, seed=seed).eval()


@torch.no_grad()
def test_looking_into_a_model_changes_no_bit_of_its_logits(tiny_settings, batch):
    model = build(tiny_settings)
    before = model(batch).logits

    explain(model, batch)

    assert torch.equal(model(batch).logits, before)
    assert torch.equal(model(batch, return_attention=True, return_features=True).logits, before)


@torch.no_grad()
def test_the_six_maps_are_those_the_model_gives(tiny_settings, batch):
    model = build(tiny_settings)

    shown, given = explain(model, batch).fusion, model(batch, return_attention=True).attention

    assert shown is not None
    assert_close(tuple(shown), tuple(given))


@torch.no_grad()
def test_the_gated_messages_make_the_fused_streams(tiny_settings, batch):
    model = build(tiny_settings)
    assert isinstance(model, SiFormer)
    assert model.fusion is not None

    messages = explain(model, batch).messages
    features = model(batch, return_features=True).features

    assert messages is not None
    updates = (model.fusion.update_left, model.fusion.update_right, model.fusion.update_body)
    for stream, update, fused in zip(messages, updates, features, strict=True):
        total = stream.own + stream.gate * (stream.first_message + stream.second_message)
        assert_close(update.norm(total), fused)


@torch.no_grad()
def test_no_message_comes_from_a_hand_that_never_shows(tiny_settings, batch):
    messages = explain(build(tiny_settings), batch).messages

    # The second clip has no left hand.
    assert messages is not None
    assert not messages.right_hand.first_message[1].any()
    assert not messages.body.first_message[1].any()
    assert messages.body.second_message[1].any()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["siformer", "spoter"])
def test_every_map_is_a_distribution_over_real_frames(tiny_settings, batch, kind, name):
    explained = explain(build(tiny_settings, attention=kind, name=name), batch)

    maps = [weights for layer in explained.encoders for weights in layer.values()]
    maps += explained.decoder
    assert len(explained.encoders) == 2
    assert len(explained.decoder) == 1
    for weights in maps:
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        on_padding = weights.masked_select(~batch.is_valid[:, None, None, :])
        assert not on_padding.any()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_map_averages_the_values_into_what_the_layer_attends(tiny_settings, batch, kind):
    model = build(tiny_settings, attention=kind)
    assert isinstance(model, SiFormer)
    layer = cast("EncoderLayer", model.body_encoder.layers[0])
    frames = batch.body + model.body_encoder.positions[: batch.body.shape[1]]
    attention = layer.attention.attention
    value = split_heads(attention.value_projection(frames), attention.num_heads)

    weights = explain(model, batch).encoders[0]["body"]

    attended = attention.output_projection(join_heads(weights @ value))[batch.is_valid]
    assert_close(attended, layer.attention(frames, batch.is_valid)[batch.is_valid])


@torch.no_grad()
def test_the_class_query_is_followed_through_the_decoder(tiny_settings, batch):
    model = build(tiny_settings, num_decoder_layers=2)
    assert isinstance(model, SiFormer)
    memory = torch.cat(model(batch, return_features=True).features, dim=-1)
    layers = cast("list[DecoderLayer]", list(model.decoder.layers))
    query = model.decoder.class_query.expand(len(memory), 1, -1)

    shown = explain(model, batch).decoder

    # One head by hand: softmax over the valid frames of the scaled scores.
    for layer, weights in zip(layers, shown, strict=True):
        normed = layer.norm_query(query + query)
        head = layer.attention
        scores = (
            head.query_projection(normed)[..., :12]
            @ (head.key_projection(memory)[..., :12].transpose(1, 2))
        ) / math.sqrt(12)
        scores = scores.masked_fill(~batch.is_valid[:, None], -torch.inf)
        assert_close(weights[:, 0], scores.softmax(-1))
        query = layer(query, memory, batch.is_valid)


def test_a_model_without_fusion_has_no_maps_between_streams(tiny_settings, batch):
    explained = explain(build(tiny_settings, cross_attention=False), batch)

    assert explained.fusion is None
    assert explained.messages is None


def test_a_model_in_training_is_refused(tiny_settings, batch):
    with pytest.raises(ValueError, match="evaluation mode"):
        explain(build(tiny_settings).train(), batch)
