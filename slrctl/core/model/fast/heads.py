"""The layout of attention heads in which products run at full rate.

Each head is padded with zeros to a multiple of 16 columns, with two spare ones at least. They carry
what would be passes over the scores: `barrier` keeps padding out (1 in the queries; 0 or a huge
negative number in the keys), `offset` subtracts a number from a row (its negative in the queries,
1 in the keys). Both come out of the projection, as entries of its bias.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

_VECTOR = 16


class HeadLayout(NamedTuple):
    """How many heads there are, how wide they are, and to what width they are padded."""

    num_heads: int
    head_dim: int
    padded: int

    @property
    def barrier(self) -> int:
        return self.head_dim

    @property
    def offset(self) -> int:
        return self.head_dim + 1

    def spread(self, rows: Float[Tensor, " *axes"], one_in: int | None = None) -> Tensor:
        """Insert the spare rows: zeros, but for ones in `one_in`."""
        spread = rows.new_zeros(self.num_heads, self.padded, *rows.shape[1:])
        spread[:, : self.head_dim] = rows.unflatten(0, (self.num_heads, self.head_dim))
        if one_in is not None:
            spread[:, one_in] = 1
        return spread.flatten(0, 1)

    def gather(self, spread: Float[Tensor, " *axes"]) -> Tensor:
        """Leave the spare rows out again: a copy."""
        return spread.unflatten(0, (self.num_heads, -1))[:, : self.head_dim].flatten(0, 1)

    def apart(self, frames: Float[Tensor, "B T S"]) -> Float[Tensor, "_ T _"]:
        """Lay heads behind one another, all clips of the first before the second's: a copy."""
        num_clips, num_frames, _ = frames.shape
        heads = frames.view(num_clips * num_frames, -1, self.padded).transpose(0, 1)
        return heads.reshape(-1, num_frames, self.padded)

    def beside(self, heads: Float[Tensor, "_ T _"], num_clips: int) -> Float[Tensor, "N S"]:
        """Lay the heads of a frame beside one another again: a copy."""
        rows = heads.view(-1, num_clips * heads.shape[1], self.padded)
        return rows.transpose(0, 1).flatten(1)


def head_layout(embed_dim: int, num_heads: int) -> HeadLayout:
    """The layout of so many heads in so many features."""
    head_dim = embed_dim // num_heads
    return HeadLayout(num_heads, head_dim, -(-(head_dim + 2) // _VECTOR) * _VECTOR)
