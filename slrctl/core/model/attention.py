"""Multi-head attention, and the three kinds of self-attention an encoder can use."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.seeding import scoped_generator


def dropout(features: Tensor, rate: float, is_training: bool) -> Tensor:
    """Zero each feature with probability `rate` in training and scale up the others.

    Under `scoped_seed` a CPU draws from the generator of its thread and block, which
    `torch.nn.functional.dropout` cannot take.
    """
    generator = scoped_generator(features.device)
    if generator is None or not is_training or rate == 0:
        return F.dropout(features, rate, is_training)
    is_kept = torch.rand(features.shape, generator=generator) >= rate
    return features * is_kept.to(features.dtype).div_(1 - rate)


def attend(
    query: Float[Tensor, "B Q D"],
    key: Float[Tensor, "B T D"],
    value: Float[Tensor, "B T D"],
    key_mask: Bool[Tensor, "B T"],
    num_heads: int,
    rate: float,
) -> Float[Tensor, "B Q D"]:
    """Average the values of each head under the softmax of its scores.

    Args:
        query: the heads beside one another, as in `key` and `value`.
        key: of the frames that are read.
        value: of the same frames.
        key_mask: True = attend. A clip without such a key gets a finite result.
        num_heads: a divisor of D.
        rate: of dropout on the weights.
    """
    if rate == 0 or query.device.type != "cpu":
        # Softmax over no key at all would be NaN.
        mask = key_mask | ~key_mask.any(-1, keepdim=True)
        heads = F.scaled_dot_product_attention(
            *(split_heads(x, num_heads) for x in (query, key, value)),
            attn_mask=mask[:, None, None],
            dropout_p=rate,
        )
    else:
        # Torch's fused attention has no dropout on a CPU.
        weights = attention_weights(attention_scores(query, key, num_heads), key_mask)
        kept = dropout(weights, rate, is_training=True)
        heads = kept.to(value.dtype) @ split_heads(value, num_heads)
    return join_heads(heads)


def split_heads(features: Float[Tensor, "B T D"], num_heads: int) -> Float[Tensor, "B H T d"]:
    return features.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def join_heads(heads: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
    return heads.transpose(1, 2).flatten(2)


def attention_scores(
    query: Float[Tensor, "B Q D"], key: Float[Tensor, "B T D"], num_heads: int
) -> Float[Tensor, "B H Q T"]:
    """Return the scaled dot products, in float32 at least."""
    query, key = split_heads(query, num_heads), split_heads(key, num_heads)
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def attention_weights(
    scores: Float[Tensor, "B H Q T"], key_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B H Q T"]:
    """Apply softmax over the keys of the mask; all weights are 0 where it has none."""
    # Finite, for -inf in a whole row would give NaN, and NaN gradients everywhere. A sum is three
    # times faster than `masked_fill` of the scores.
    bias = scores.new_zeros(key_mask.shape).masked_fill(
        ~key_mask, torch.finfo(scores.dtype).min / 2
    )
    weights = (scores + bias[:, None, None]).softmax(-1)
    return weights * key_mask.any(-1)[:, None, None, None].to(weights.dtype)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, sec. 3.2).

    The key bias is kept, as in the published parameter count, although softmax removes it: it has
    no gradient.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads})"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_projection = nn.Linear(embed_dim, embed_dim)
        self.key_projection = nn.Linear(embed_dim, embed_dim)
        self.value_projection = nn.Linear(embed_dim, embed_dim)
        self.output_projection = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        keys: Float[Tensor, "B T D"],
        key_mask: Bool[Tensor, "B T"],
        *,
        return_weights: bool = False,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None]:
        """Return the messages and, if asked for, the weights before dropout.

        The weights are computed in addition: the messages have the same bits without them. A clip
        without a key to attend to gets weights of 0 and a message of 0.
        """
        query, key = self.query_projection(queries), self.key_projection(keys)
        value = self.value_projection(keys)
        rate = self.dropout if self.training else 0.0
        heads = attend(query, key, value, key_mask, self.num_heads, rate)
        messages = self.output_projection(heads)
        # The output projection has a bias, which must not speak for a stream that is absent.
        messages = messages * key_mask.any(-1)[:, None, None].to(messages.dtype)
        if not return_weights:
            return messages, None
        return messages, attention_weights(attention_scores(query, key, self.num_heads), key_mask)

    def weights(
        self,
        queries: Float[Tensor, "B Q D"],
        keys: Float[Tensor, "B T D"],
        key_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B H Q T"]:
        """Return the weights with which `forward` averages the values, before dropout."""
        query, key = self.query_projection(queries), self.key_projection(keys)
        return attention_weights(attention_scores(query, key, self.num_heads), key_mask)


class SelfAttention(nn.Module):
    """Every valid frame attends to every valid frame of its clip (kind `full`)."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        return self.attention(frames, frames, is_valid)[0]

    def weights(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B H T T"]:
        """Return the weights with which `forward` averages the values, before dropout."""
        return self.attention.weights(frames, frames, is_valid)


class FirstFrameAttention(SelfAttention):
    """Full attention whose output at frame 0 goes to every frame (kind `first_frame`).

    This is what the published encoder computes: it takes element 0 of the attention output, so the
    order of the frames is lost. Kept for comparison.
    """

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        return super().forward(frames, is_valid)[:, :1].expand_as(frames)

    def weights(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B H T T"]:
        weights = super().weights(frames, is_valid)
        return weights[:, :, :1].expand_as(weights)


class ProbSparseAttention(nn.Module):
    """Informer's attention (Zhou et al. 2021, sec. 3.2): only the most peaked queries attend.

    With n valid frames, the u = min(n, 5 ceil(ln n)) queries with the largest difference between
    their highest and their mean score attend; the others take the mean of the valid values. In
    training a query's peakedness is estimated from u keys drawn from torch's scoped generator; at
    evaluation it is taken from all keys, so a prediction is deterministic. All scores are computed
    either way: at 204 frames a gather costs more than it saves.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        attention = self.attention
        value = split_heads(attention.value_projection(frames), attention.num_heads)
        weights = self.weights(frames, is_valid, rate=attention.dropout if self.training else 0.0)
        return attention.output_projection(join_heads(weights.to(value.dtype) @ value))

    def weights(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"], *, rate: float = 0.0
    ) -> Float[Tensor, "B H T T"]:
        """Return the weights with which `forward` averages the values, after dropout of this rate.

        Queries that do not attend weigh all valid frames alike, without dropout.
        """
        attention = self.attention
        query, key = attention.query_projection(frames), attention.key_projection(frames)
        scores = attention_scores(query, key, attention.num_heads)
        is_valid_key = is_valid[:, None, None, :]
        num_active = num_active_queries(is_valid.sum(-1))
        sampled = is_valid_key.expand(-1, 1, frames.shape[1], -1)
        if self.training:
            generator = scoped_generator(frames.device)
            draws = torch.rand(sampled.shape, device=frames.device, generator=generator)
            sampled = sampled & is_among_top(
                draws.masked_fill(~sampled, -1.0), num_active[:, None, None, None]
            )
        active = is_among_top(
            peakedness(scores.detach(), sampled).masked_fill(~is_valid[:, None], -torch.inf),
            num_active[:, None, None],
        )
        weights = dropout(attention_weights(scores, is_valid), rate, is_training=True)
        mean = is_valid_key / is_valid_key.sum(-1, keepdim=True).clamp(min=1)
        return torch.where(active[..., None], weights, mean)


def num_active_queries(num_frames: Tensor) -> Tensor:
    """Return u = min(n, 5 ceil(ln n)) for each clip's n valid frames."""
    return torch.minimum(num_frames, 5 * num_frames.clamp(min=1).log().ceil().long())


def is_among_top(values: Float[Tensor, "*rows T"], count: Tensor) -> Bool[Tensor, "*rows T"]:
    """Mark the `count` largest values of each row; the earlier one wins a tie."""
    order = values.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1) < count


def peakedness(
    scores: Float[Tensor, "B H Q T"], sampled: Bool[Tensor, "B 1 Q T"]
) -> Float[Tensor, "B H Q"]:
    """Subtract the mean from the highest score over the sampled keys (Informer, eq. 4)."""
    highest = scores.masked_fill(~sampled, -torch.inf).amax(-1)
    mean = (scores * sampled).sum(-1) / sampled.sum(-1).clamp(min=1)
    return highest - mean


def build_self_attention(
    kind: str, embed_dim: int, num_heads: int, dropout: float
) -> SelfAttention | FirstFrameAttention | ProbSparseAttention:
    """Build the self-attention that `model.attention` names."""
    match kind:
        case "full":
            return SelfAttention(embed_dim, num_heads, dropout)
        case "first_frame":
            return FirstFrameAttention(embed_dim, num_heads, dropout)
        case "prob":
            return ProbSparseAttention(embed_dim, num_heads, dropout)
    raise ValueError(f"attention kind {kind!r} is not one of full, prob, first_frame")
