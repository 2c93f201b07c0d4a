"""Cross-modal attention fusion: the three streams read one another, frame by frame."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model import fast
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.fast.gate import gated_update


class Streams(NamedTuple):
    """One tensor per body part."""

    left_hand: Float[Tensor, "B T L"]
    right_hand: Float[Tensor, "B T R"]
    body: Float[Tensor, "B T W"]


class StreamPresence(NamedTuple):
    """Where each part can be attended to; the body wherever a frame is real."""

    left_hand: Bool[Tensor, "B T"]
    right_hand: Bool[Tensor, "B T"]
    body: Bool[Tensor, "B T"]


class CrossModalAttention(NamedTuple):
    """The six maps, before dropout.

    Row i of `left_to_right` is what left-hand frame i takes from the frames of the right hand. Rows
    sum to 1 over the frames where the other part is present and are 0 where there is none.
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


class DirectedAttention(nn.Module):
    """What one stream takes from another: the other's features, projected to its own width."""

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
        return_attention: bool = True,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H T T"] | None]:
        return self.attention(
            own,
            other,
            other_is_present,
            before=self.other_projection,
            return_weights=return_attention,
        )


class GatedUpdate(nn.Module):
    """Add both messages to a stream, as far as a learned gate lets them through."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(3 * embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self,
        own: Float[Tensor, "B T D"],
        message: Float[Tensor, "B T D"],
        other_message: Float[Tensor, "B T D"],
    ) -> Float[Tensor, "B T D"]:
        are_alike = own.shape == message.shape == other_message.shape
        if fast.applies_to(own, message, other_message) and are_alike:
            return gated_update(own, message, other_message, self.gate, self.norm)
        gate = torch.sigmoid(self.gate(torch.cat([own, message, other_message], dim=-1)))
        return self.norm(own + gate * (message + other_message))


class CrossModalAttentionFusion(nn.Module):
    """Six directed attentions and a gated update per stream (SPEC, section 4)."""

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
    ) -> tuple[Streams, dict[str, Float[Tensor, "B H T T"]]]:
        """Return the fused streams, of the same widths, and the maps that are wanted, by name."""
        left, right, body = streams
        messages, maps = [], {}
        for name, directed, own, other, is_present in (
            ("left_to_right", self.left_from_right, left, right, present.right_hand),
            ("left_to_body", self.left_from_body, left, body, present.body),
            ("right_to_left", self.right_from_left, right, left, present.left_hand),
            ("right_to_body", self.right_from_body, right, body, present.body),
            ("body_to_left", self.body_from_left, body, left, present.left_hand),
            ("body_to_right", self.body_from_right, body, right, present.right_hand),
        ):
            message, maps[name] = directed(own, other, is_present, return_attention=name in wanted)
            messages.append(message)
        fused = Streams(
            self.update_left(left, *messages[0:2]),
            self.update_right(right, *messages[2:4]),
            self.update_body(body, *messages[4:6]),
        )
        return fused, {name: maps[name] for name in wanted}
