"""Cross-modal attention fusion: the three streams read one another, frame by frame."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model.attention import MultiHeadAttention


class Streams(NamedTuple):
    """One tensor per stream."""

    left_hand: Float[Tensor, "B T L"]
    right_hand: Float[Tensor, "B T R"]
    body: Float[Tensor, "B T W"]


class StreamPresence(NamedTuple):
    """Frames in which each stream can be attended to; the body wherever a frame is real."""

    left_hand: Bool[Tensor, "B T"]
    right_hand: Bool[Tensor, "B T"]
    body: Bool[Tensor, "B T"]


class CrossModalAttention(NamedTuple):
    """The six maps, before dropout.

    Row i of `left_to_right` is what left-hand frame i takes from the frames of the right hand. Rows
    sum to 1 over the frames where the other stream is present and are 0 where there is none.
    """

    left_to_right: Float[Tensor, "B H T T"]
    left_to_body: Float[Tensor, "B H T T"]
    right_to_left: Float[Tensor, "B H T T"]
    right_to_body: Float[Tensor, "B H T T"]
    body_to_left: Float[Tensor, "B H T T"]
    body_to_right: Float[Tensor, "B H T T"]


class HandAttention(NamedTuple):
    """The two maps between the hands, which are all that CMCL needs."""

    left_to_right: Float[Tensor, "B H T T"]
    right_to_left: Float[Tensor, "B H T T"]


def wanted_maps(
    fusion: nn.Module | None, *, return_attention: bool, return_hand_attention: bool
) -> tuple[str, ...]:
    """Name the maps that a caller asked a model for.

    Raises:
        ValueError: any, of a model without cross-attention.
    """
    if fusion is None and (return_attention or return_hand_attention):
        raise ValueError(
            "attention was asked of a model without cross-attention; "
            "build it with model.cross_attention = true"
        )
    if return_attention:
        return CrossModalAttention._fields
    return HandAttention._fields if return_hand_attention else ()


class GatedMessages(NamedTuple):
    """A stream before the fusion, and its messages: `LayerNorm(own + gate * (first + second))`.

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


class FusionOutput(NamedTuple):
    """The fused streams, the maps that were asked for, by name, and the messages."""

    streams: Streams
    maps: dict[str, Float[Tensor, "B H T T"]]
    messages: StreamMessages


class DirectedAttention(nn.Module):
    """Attention from one stream to another, whose features are projected to the own width."""

    def __init__(self, embed_dim: int, other_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.other_projection = nn.Linear(other_dim, embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)

    def forward(
        self,
        own: Float[Tensor, "B T D"],
        other: Float[Tensor, "B T O"],
        other_is_present: Bool[Tensor, "B T"],
        *,
        return_attention: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H T T"] | None]:
        other = self.other_projection(other)
        return self.attention(own, other, other_is_present, return_weights=return_attention)


class GatedUpdate(nn.Module):
    """The sum of a stream and its two messages times a learned gate, normalised."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(3 * embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self,
        own: Float[Tensor, "B T D"],
        first: Float[Tensor, "B T D"],
        second: Float[Tensor, "B T D"],
    ) -> tuple[Float[Tensor, "B T D"], GatedMessages]:
        gate = torch.sigmoid(self.gate(torch.cat([own, first, second], dim=-1)))
        return self.norm(own + gate * (first + second)), GatedMessages(own, gate, first, second)


class CrossModalAttentionFusion(nn.Module):
    """Six directed attentions and a gated update per stream (docs/method.md, the fusion)."""

    def __init__(self, hand_dim: int, body_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.left_from_right = DirectedAttention(hand_dim, hand_dim, num_heads, dropout)
        self.left_from_body = DirectedAttention(hand_dim, body_dim, num_heads, dropout)
        self.right_from_left = DirectedAttention(hand_dim, hand_dim, num_heads, dropout)
        self.right_from_body = DirectedAttention(hand_dim, body_dim, num_heads, dropout)
        self.body_from_left = DirectedAttention(body_dim, hand_dim, num_heads, dropout)
        self.body_from_right = DirectedAttention(body_dim, hand_dim, num_heads, dropout)
        self.update_left = GatedUpdate(hand_dim)
        self.update_right = GatedUpdate(hand_dim)
        self.update_body = GatedUpdate(body_dim)

    def forward(
        self,
        streams: Streams,
        present: StreamPresence,
        *,
        wanted: Collection[str] = CrossModalAttention._fields,
    ) -> FusionOutput:
        """Fuse the streams; `wanted` names the maps to return, which change no bit of the rest."""
        left, right, body = streams
        directions = {
            "left_to_right": (self.left_from_right, left, right, present.right_hand),
            "left_to_body": (self.left_from_body, left, body, present.body),
            "right_to_left": (self.right_from_left, right, left, present.left_hand),
            "right_to_body": (self.right_from_body, right, body, present.body),
            "body_to_left": (self.body_from_left, body, left, present.left_hand),
            "body_to_right": (self.body_from_right, body, right, present.right_hand),
        }
        messages, maps = {}, {}
        for name, (attention, own, other, is_present) in directions.items():
            messages[name], maps[name] = attention(
                own, other, is_present, return_attention=name in wanted
            )
        left, of_left = self.update_left(left, messages["left_to_right"], messages["left_to_body"])
        right, of_right = self.update_right(
            right, messages["right_to_left"], messages["right_to_body"]
        )
        body, of_body = self.update_body(body, messages["body_to_left"], messages["body_to_right"])
        return FusionOutput(
            Streams(left, right, body),
            {name: maps[name] for name in wanted},
            StreamMessages(of_left, of_right, of_body),
        )
