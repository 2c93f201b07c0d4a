"""Look inside a model: every attention map, and what the streams take from one another.

Nothing here is on the way to a prediction. The maps are worked out a second time, beside it, from
the same weights: so a prediction has the same bits whether or not it is looked into, and the model
stays free to compute it in whatever way is fastest.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.model.attention import (
    FirstFrameAttention,
    MultiHeadAttention,
    ProbSparseAttention,
    SelfAttention,
    attention_weights,
    is_among_top,
    num_active_queries,
    peakedness,
)
from slrctl.core.model.decoder import ClassDecoder, DecoderLayer
from slrctl.core.model.encoder import EncoderLayer, StreamEncoder
from slrctl.core.model.fusion import (
    CrossModalAttention,
    CrossModalAttentionFusion,
    DirectedAttention,
    GatedUpdate,
    StreamPresence,
    Streams,
)
from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.spoter import Spoter


class GatedMessages(NamedTuple):
    """What a stream had and what reached it: `out = LayerNorm(own + gate * (message_1 + _2))`.

    The messages are in the order of `CrossModalAttention`: for a hand the other hand, then the
    body; for the body the left hand, then the right one.
    """

    own: Float[Tensor, "B T D"]
    gate: Float[Tensor, "B T D"]
    first_message: Float[Tensor, "B T D"]
    second_message: Float[Tensor, "B T D"]


class StreamMessages(NamedTuple):
    """The gated messages of each stream."""

    left_hand: GatedMessages
    right_hand: GatedMessages
    body: GatedMessages


class Explanation(NamedTuple):
    """The maps of one batch, all before dropout.

    `encoders` has an entry a layer: the self-attention of each stream, by the name of its part
    (`left_hand`, `right_hand`, `body`; SPOTER's single stream is `clip`). `decoder` has one a
    layer: what the class query takes from each frame. Fusion and messages are None in a model
    whose streams do not read one another.
    """

    encoders: tuple[dict[str, Float[Tensor, "B _ T T"]], ...]
    fusion: CrossModalAttention | None
    messages: StreamMessages | None
    decoder: tuple[Float[Tensor, "B H 1 T"], ...]


def explain(model: SiFormer | Spoter, batch: ClipBatch) -> Explanation:
    """Work out every map of a model in evaluation mode.

    Raises:
        ValueError: the model is in training mode, where dropout would enter the maps of all layers
            but the first.
    """
    if model.training:
        raise ValueError("explain needs a model in evaluation mode; call model.eval() first")
    if isinstance(model, Spoter):
        frames = torch.cat([batch.left_hand, batch.right_hand, batch.body], dim=-1)
        memory, maps = _encode(model.encoder, frames, batch.is_valid)
        layers = tuple({"clip": weights} for weights in maps)
        return Explanation(layers, None, None, _decode(model.decoder, memory, batch.is_valid))
    left, left_maps = _encode(model.left_encoder, batch.left_hand, batch.is_valid)
    right, right_maps = _encode(model.right_encoder, batch.right_hand, batch.is_valid)
    body, body_maps = _encode(model.body_encoder, batch.body, batch.is_valid)
    layers = tuple(
        dict(zip(Streams._fields, maps, strict=True))
        for maps in zip(left_maps, right_maps, body_maps, strict=True)
    )
    streams, fusion, messages = Streams(left, right, body), None, None
    if model.fusion is not None:
        present = StreamPresence(batch.left_is_present, batch.right_is_present, batch.is_valid)
        fusion, messages = explain_fusion(model.fusion, streams, present)
        streams = Streams(
            _updated(model.fusion.update_left, messages.left_hand),
            _updated(model.fusion.update_right, messages.right_hand),
            _updated(model.fusion.update_body, messages.body),
        )
    memory = torch.cat(streams, dim=-1)
    return Explanation(layers, fusion, messages, _decode(model.decoder, memory, batch.is_valid))


def explain_fusion(
    fusion: CrossModalAttentionFusion, streams: Streams, present: StreamPresence
) -> tuple[CrossModalAttention, StreamMessages]:
    """The six maps between encoded streams, and the messages with their gates."""
    left, right, body = streams
    right_for_left, left_to_right = _directed(
        fusion.left_from_right, left, right, present.right_hand
    )
    body_for_left, left_to_body = _directed(fusion.left_from_body, left, body, present.body)
    left_for_right, right_to_left = _directed(
        fusion.right_from_left, right, left, present.left_hand
    )
    body_for_right, right_to_body = _directed(fusion.right_from_body, right, body, present.body)
    left_for_body, body_to_left = _directed(fusion.body_from_left, body, left, present.left_hand)
    right_for_body, body_to_right = _directed(
        fusion.body_from_right, body, right, present.right_hand
    )
    maps = CrossModalAttention(
        left_to_right, left_to_body, right_to_left, right_to_body, body_to_left, body_to_right
    )
    return maps, StreamMessages(
        _gated(fusion.update_left, left, right_for_left, body_for_left),
        _gated(fusion.update_right, right, left_for_right, body_for_right),
        _gated(fusion.update_body, body, left_for_body, right_for_body),
    )


def self_attention_map(
    attention: SelfAttention | FirstFrameAttention | ProbSparseAttention,
    frames: Float[Tensor, "B T D"],
    is_valid: Bool[Tensor, "B T"],
) -> Float[Tensor, "B H T T"]:
    """The weights with which a self-attention of any kind averages the values.

    A ProbSparse query that does not attend takes all valid frames alike; under `first_frame` every
    frame takes what frame 0 takes.
    """
    query, key, _ = attention.attention.project(frames, frames)
    scores = query @ key.transpose(-2, -1)
    weights = attention_weights(scores, is_valid)
    if isinstance(attention, FirstFrameAttention):
        return weights[:, :, :1].expand_as(weights)
    if isinstance(attention, ProbSparseAttention):
        is_valid_key = is_valid[:, None, None, :]
        peaked = peakedness(scores, is_valid_key.expand(-1, 1, frames.shape[1], -1))
        active = is_among_top(
            peaked.masked_fill(~is_valid[:, None], -torch.inf),
            num_active_queries(is_valid.sum(-1))[:, None, None],
        )
        count = is_valid_key.sum(-1, keepdim=True).clamp(min=1)
        return torch.where(active[..., None], weights, is_valid_key / count)
    return weights


def _encode(
    encoder: StreamEncoder, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T D"], list[Float[Tensor, "B H T T"]]]:
    frames = frames + encoder.positions[: frames.shape[1]]
    maps = []
    for layer in cast("Iterable[EncoderLayer]", encoder.layers):
        maps.append(self_attention_map(layer.attention, frames, is_valid))
        frames = layer(frames, is_valid)
    return encoder.norm(frames), maps


def _directed(
    directed: DirectedAttention,
    own: Float[Tensor, "B T D"],
    other: Float[Tensor, "B T O"],
    other_is_present: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H T T"]]:
    return _attend(directed.attention, own, directed.other_projection(other), other_is_present)


def _attend(
    attention: MultiHeadAttention,
    queries: Float[Tensor, "B Q D"],
    keys: Float[Tensor, "B T D"],
    is_attended: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"]]:
    """Messages and weights, as SPEC section 4 defines them."""
    query, key, value = attention.project(queries, keys)
    weights = attention_weights(query @ key.transpose(-2, -1), is_attended)
    messages = attention.output(weights @ value)
    return messages * is_attended.any(-1)[:, None, None], weights


def _gated(
    update: GatedUpdate,
    own: Float[Tensor, "B T D"],
    first: Float[Tensor, "B T D"],
    second: Float[Tensor, "B T D"],
) -> GatedMessages:
    gate = torch.sigmoid(update.gate(torch.cat([own, first, second], dim=-1)))
    return GatedMessages(own, gate, first, second)


def _updated(update: GatedUpdate, messages: GatedMessages) -> Float[Tensor, "B T D"]:
    return update(messages.own, messages.first_message, messages.second_message)


def _decode(
    decoder: ClassDecoder, memory: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B H 1 T"], ...]:
    query = decoder.class_query.expand(len(memory), 1, -1)
    maps = []
    for layer in cast("Iterable[DecoderLayer]", decoder.layers):
        # What `DecoderLayer` does with the query before it attends, outside training.
        maps.append(_attend(layer.attention, layer.norm_query(2 * query), memory, is_valid)[1])
        query = layer(query, memory, is_valid)
    return tuple(maps)
