"""Building blocks of the models that slrctl proposes: input features, recurrence, convolution."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core import skeleton
from slrctl.core.clip import ClipBatch
from slrctl.core.model.attention import attention_weights, join_heads, split_heads
from slrctl.core.model.fusion import StreamPresence, Streams
from slrctl.core.seeding import scoped_generator
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH

HAND_INPUT_DIM = 3 * HAND_WIDTH + 1
BODY_INPUT_DIM = 2 * BODY_WIDTH
# Factors that bring landmarks in the box of a hand, placed ones, and velocities of the latter to
# about the same spread.
_OWN, _PLACED, _VELOCITY = 2.0, 2 / 3, 4.0


def stream_inputs(batch: ClipBatch) -> Streams:
    """Return what the encoders read of each stream.

    Of a hand: its landmarks in its own box and beside the body, the velocities of the latter, and
    the hand's presence; the left hand as its mirror image, so that one encoder can read both. Of
    the body: its placed landmarks and their velocities. A velocity is the change to the next frame;
    0 where one of the two lacks the hand or is padding.

    Raises:
        ValueError: the batch has no placed landmarks.
    """
    if batch.placed is None:
        raise ValueError(
            "the batch has no placed landmarks, which this model reads; make it with clip_batch or "
            "evaluation_batches instead of collate"
        )
    placed = _PLACED * batch.placed
    left, right = placed[:, :, skeleton.LEFT_HAND], placed[:, :, skeleton.RIGHT_HAND]
    body = placed[:, :, skeleton.BODY].flatten(2)
    flip = torch.tensor([-1.0, 1.0], device=placed.device, dtype=placed.dtype)
    mirrored = (batch.left_hand.unflatten(-1, (-1, 2)) * flip).flatten(2)
    return Streams(
        _hand_inputs(mirrored, (left * flip).flatten(2), batch.left_is_present),
        _hand_inputs(batch.right_hand, right.flatten(2), batch.right_is_present),
        torch.cat([body, _velocity(body, batch.is_valid)], dim=-1),
    )


def _hand_inputs(
    own: Float[Tensor, "B T 42"], placed: Float[Tensor, "B T 42"], is_present: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T F"]:
    velocity = _velocity(placed, is_present)
    shown = is_present[..., None].to(own.dtype)
    return torch.cat([_OWN * own, placed, velocity, shown], dim=-1)


def _velocity(
    values: Float[Tensor, "B T F"], is_known: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T F"]:
    both_known = (is_known[:, 1:] & is_known[:, :-1])[..., None]
    change = torch.where(both_known, values[:, 1:] - values[:, :-1], 0.0)
    return _VELOCITY * F.pad(change, (0, 0, 0, 1))


def presence(batch: ClipBatch) -> StreamPresence:
    """Return the frames in which each stream can be read."""
    return StreamPresence(batch.left_is_present, batch.right_is_present, batch.is_valid)


class FeatureDropout(nn.Module):
    """Dropout of whole features: a feature is lost in all frames of a clip, or in none."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, features: Float[Tensor, "B *T D"]) -> Float[Tensor, "B *T D"]:
        if not self.training or self.rate == 0:
            return features
        shape = (len(features), *[1] * (features.ndim - 2), features.shape[-1])
        generator = scoped_generator(features.device)
        draws = torch.rand(shape, device=features.device, generator=generator)
        return features * (draws >= self.rate).to(features.dtype).div_(1 - self.rate)


def initial_log_scale(embed_dim: int, num_heads: int) -> nn.Parameter:
    """Return the logarithm of each head's scale of cosines: sqrt(d) for a head of d features.

    So scores are as large as those of unnormalised attention at first.

    Raises:
        ValueError: the heads would not have an even number of features.
    """
    if embed_dim % (2 * num_heads):
        raise ValueError(
            f"embed_dim ({embed_dim}) must be divisible by 2 * num_heads ({2 * num_heads})"
        )
    return nn.Parameter(torch.full((num_heads, 1, 1), math.log(embed_dim / num_heads) / 2))


def turned(
    query: Float[Tensor, "*B H Q d"], key: Float[Tensor, "*B H T d"], log_scale: Tensor
) -> tuple[Float[Tensor, "*B H Q d"], Float[Tensor, "*B H T d"]]:
    """Normalise queries and keys, scale the queries, and turn both by their frame."""
    return rotate(F.normalize(query, dim=-1) * log_scale.exp()), rotate(F.normalize(key, dim=-1))


def masked_attention(
    query: Float[Tensor, "B H Q d"],
    key: Float[Tensor, "B H T d"],
    value: Float[Tensor, "B H T d"],
    key_mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B H Q d"]:
    """Average the values under the softmax of the products; 0 for a clip without a key."""
    has_key = key_mask.any(-1)
    # Softmax over no key at all would be NaN.
    mask = key_mask | ~has_key[:, None]
    heads = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None, None], scale=1.0
    )
    return heads * has_key[:, None, None, None].to(heads.dtype)


def masked_weights(
    query: Float[Tensor, "B H Q d"], key: Float[Tensor, "B H T d"], key_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B H Q T"]:
    """Return the weights of `masked_attention`; 0 for a clip without a key."""
    return attention_weights((query @ key.mT).float(), key_mask)


class RotaryAttention(nn.Module):
    """Self-attention with normalised queries and keys, and rotary positions.

    Scores are cosines times a learned scale of each head (Henry et al. 2020), turned by the
    distance in frames (Su et al. 2021). Nothing is dropped, so it runs through
    `F.scaled_dot_product_attention` on every device.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.output_projection = nn.Linear(embed_dim, embed_dim)
        self.log_scale = initial_log_scale(embed_dim, num_heads)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        query, key, value = self._projected(frames)
        return self.output_projection(join_heads(masked_attention(query, key, value, is_valid)))

    def weights(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B H T T"]:
        """Return the weights with which `forward` averages the values."""
        query, key, _ = self._projected(frames)
        return masked_weights(query, key, is_valid)

    def _projected(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = split_heads(self.projection(frames), 3 * self.num_heads)
        query, key, value = heads.chunk(3, dim=1)
        return *turned(query, key, self.log_scale), value


def rotate(heads: Float[Tensor, "*B T d"]) -> Float[Tensor, "*B T d"]:
    """Turn pairs of features by angles that grow with the frame (Su et al. 2021, eq. 15)."""
    num_frames, width = heads.shape[-2:]
    device, dtype = heads.device, torch.float32
    # Wavelengths of 6 to some thousand frames.
    exponents = torch.arange(0, width, 2, device=device, dtype=dtype) / width
    angles = torch.arange(num_frames, device=device, dtype=dtype)[:, None] * 1000.0**-exponents
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class RecurrentBlock(nn.Module):
    """A GRU in either direction of time, added to its input (Cho et al. 2014).

    Either direction reads the valid frames alone, one after the other, so neither padding nor a
    removed frame changes anything.
    """

    def __init__(self, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.forward_in_time = nn.GRU(embed_dim, embed_dim // 2, batch_first=True)
        self.backward_in_time = nn.GRU(embed_dim, embed_dim // 2, batch_first=True)
        self.dropout = FeatureDropout(dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        normed = self.norm(frames)
        ahead = _read_in_order(self.forward_in_time, normed, reading_order(is_valid))
        back = _read_in_order(
            self.backward_in_time, normed, reading_order(is_valid, is_reversed=True)
        )
        return frames + self.dropout(torch.cat([ahead, back], dim=-1))


def reading_order(
    is_valid: Bool[Tensor, "B T"], *, is_reversed: bool = False
) -> Int64[Tensor, "B T"]:
    """Return the valid frames of each clip in the order of time, or reversed; then all others."""
    num_frames = is_valid.shape[1]
    times = torch.arange(num_frames, device=is_valid.device)
    if is_reversed:
        times = num_frames - 1 - times
    return torch.where(is_valid, times, times + num_frames).argsort(dim=1)


def _read_in_order(
    layer: nn.GRU, frames: Float[Tensor, "B T D"], order: Int64[Tensor, "B T"]
) -> Float[Tensor, "B T E"]:
    """Read frames in an order, and return the states at their places in time."""
    states, _ = layer(frames.take_along_dim(order[..., None], dim=1))
    return states.take_along_dim(order.argsort(dim=1)[..., None], dim=1)


class ConvolutionBlock(nn.Module):
    """A depthwise convolution over time between two linear layers, added to its input."""

    def __init__(self, embed_dim: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        wide = 2 * embed_dim
        self.norm = nn.LayerNorm(embed_dim)
        self.expand = nn.Linear(embed_dim, wide)
        # As an image one pixel high: torch's 1-D kernels are several times slower on a CPU.
        self.convolution = nn.Conv2d(
            wide, wide, (1, kernel_size), padding=(0, kernel_size // 2), groups=wide
        )
        self.inner_norm = nn.LayerNorm(wide)
        self.contract = nn.Linear(wide, embed_dim)
        self.dropout = FeatureDropout(dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        wide = F.silu(self.expand(self.norm(frames)))
        wide = torch.where(is_valid[..., None], wide, 0.0)
        wide = self.convolution(wide.mT[:, :, None])[:, :, 0].mT
        return frames + self.dropout(self.contract(F.silu(self.inner_norm(wide))))


class AttentionBlock(nn.Module):
    """Self-attention and a feed-forward, each normalised before and added to its input."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.attention = RotaryAttention(embed_dim, num_heads)
        self.norm_feed_forward = nn.LayerNorm(embed_dim)
        self.expand = nn.Linear(embed_dim, 2 * embed_dim)
        self.contract = nn.Linear(2 * embed_dim, embed_dim)
        self.dropout = FeatureDropout(dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        normed = self.norm(frames)
        frames = frames + self.dropout(self.attention(normed, is_valid))
        wide = self.dropout(F.silu(self.expand(self.norm_feed_forward(frames))))
        return frames + self.dropout(self.contract(wide))


class ClipPooling(nn.Module):
    """The mean of a clip's frames, and beside it their average under a learned class query."""

    def __init__(self, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.attention = QueryAttention(embed_dim)
        self.dropout = FeatureDropout(dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_present: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B E"]:
        """Return 2 D features of each clip; 0 for a clip without a frame."""
        frames = self.norm(frames)
        shown = is_present[..., None].to(frames.dtype)
        mean = (frames * shown).sum(1) / shown.sum(1).clamp(min=1)
        return self.dropout(torch.cat([mean, self.attention(frames, is_present)], dim=-1))


class QueryAttention(nn.Module):
    """The average of the frames, weighted by the similarity of their keys to a learned query."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.class_query = nn.Parameter(torch.zeros(1, embed_dim))
        self.key_projection = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_present: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B D"]:
        return (self.weights(frames, is_present)[:, 0] @ frames)[:, 0]

    def weights(
        self, frames: Float[Tensor, "B T D"], is_present: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B 1 1 T"]:
        """Return the weight of every frame; 0 where it is not present."""
        scores = self.key_projection(frames) @ self.class_query[0] / math.sqrt(frames.shape[-1])
        bias = scores.masked_fill(~is_present, torch.finfo(scores.dtype).min / 2)
        weights = bias.softmax(-1) * is_present.any(-1, keepdim=True).to(scores.dtype)
        return weights[:, None, None]
