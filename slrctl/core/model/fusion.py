"""Cross-modal attention fusion: the three streams read one another, frame by frame."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model import fast
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.fast.fusion import fuse
from slrctl.core.model.fast.fusion_weights import Direction, Update
from slrctl.core.model.fast.random_words import weights_fit


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
        other = self.other_projection(other)
        return self.attention(own, other, other_is_present, return_weights=return_attention)


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
        if fast.applies_to(*streams) and self._fit_together(streams, present):
            return self._fast(streams, present, wanted)
        messages, maps = [], {}
        for name, (own, other, directed) in self._directions().items():
            message, maps[name] = directed(
                streams[own], streams[other], present[other], return_attention=name in wanted
            )
            messages.append(message)
        fused = Streams(
            *(
                update(own, *messages[2 * number : 2 * number + 2])
                for number, (update, own) in enumerate(zip(self._updates(), streams, strict=True))
            )
        )
        return fused, {name: maps[name] for name in wanted}

    def _directions(self) -> dict[str, tuple[int, int, DirectedAttention]]:
        """Of each map: the number of the stream that reads, of the one that is read, and how."""
        left, right, body = range(len(Streams._fields))
        return {
            "left_to_right": (left, right, self.left_from_right),
            "left_to_body": (left, body, self.left_from_body),
            "right_to_left": (right, left, self.right_from_left),
            "right_to_body": (right, body, self.right_from_body),
            "body_to_left": (body, left, self.body_from_left),
            "body_to_right": (body, right, self.body_from_right),
        }

    def _updates(self) -> tuple[GatedUpdate, GatedUpdate, GatedUpdate]:
        return self.update_left, self.update_right, self.update_body

    def _fit_together(self, streams: Streams, present: StreamPresence) -> bool:
        """Whether all are of the same clips and frames: kernels do not look where they write.

        A batch without clips takes the plain path too.
        """
        sizes = {tuple(tensor.shape[:2]) for tensor in (*streams, *present)}
        widths = [update.gate.out_features for update in self._updates()]
        return (
            len(sizes) == 1
            and streams.body.numel() > 0
            and [stream.shape[-1] for stream in streams] == widths
            and weights_fit(streams.body.shape[1])
        )

    def _fast(
        self, streams: Streams, present: StreamPresence, wanted: Collection[str]
    ) -> tuple[Streams, dict[str, Float[Tensor, "B H T T"]]]:
        directions = self._directions()
        fused, maps = fuse(
            streams,
            present,
            [
                Direction(
                    own,
                    other,
                    directed.other_projection,
                    directed.attention.projections(),
                    directed.attention.num_heads,
                    directed.attention.dropout if directed.attention.training else 0.0,
                )
                for own, other, directed in directions.values()
            ],
            [Update(one.gate, one.norm) for one in self._updates()],
            [number for number, name in enumerate(directions) if name in wanted],
        )
        by_name = dict(zip(directions, maps, strict=True))
        return Streams(*fused), {name: by_name[name] for name in wanted}  # pyright: ignore[reportReturnType]
