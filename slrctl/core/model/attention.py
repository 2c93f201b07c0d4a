"""Multi-head attention, and the three kinds of self-attention an encoder can use."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model import fast
from slrctl.core.model.dropout import dropout_of_weights
from slrctl.core.model.fast.attention import Projections, attend
from slrctl.core.model.fast.random_words import weights_fit
from slrctl.core.seeding import scoped_generator


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with its weights in reach (Vaswani et al. 2017, sec. 3.2).

    It is split into steps so that SiFormer's kinds of attention and the cross-modal maps share one
    implementation. The key bias is kept, as in the published parameter count, although softmax
    removes it: it has no gradient.
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

    def projections(self) -> Projections:
        """The linear maps, for the fast path."""
        return Projections(
            self.query_projection,
            self.key_projection,
            self.value_projection,
            self.output_projection,
        )

    def project(
        self, queries: Float[Tensor, "B Q D"], keys: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B H Q d"], Float[Tensor, "B H T d"], Float[Tensor, "B H T d"]]:
        """Project and split into heads; the queries are scaled already."""
        query = self._split(self.query_projection(queries))
        key = self._split(self.key_projection(keys))
        value = self._split(self.value_projection(keys))
        return query / math.sqrt(query.shape[-1]), key, value

    def combine(
        self,
        weights: Float[Tensor, "B H Q T"],
        value: Float[Tensor, "B H T d"],
        is_attended: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B H Q d"]:
        """Average the values under the weights, some of which dropout removes in training."""
        kept = dropout_of_weights(weights, self.dropout, self.training, is_attended)
        return kept.to(value.dtype) @ value

    def output(self, heads: Float[Tensor, "B H Q d"]) -> Float[Tensor, "B Q D"]:
        """Join the heads and project them."""
        return self.output_projection(heads.transpose(1, 2).flatten(2))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        keys: Float[Tensor, "B T D"],
        is_attended: Bool[Tensor, "B T"],
        *,
        return_weights: bool = True,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None]:
        """Return the messages and, if asked for, the weights before dropout.

        A clip without a key to attend to gets weights of 0 and a message of 0.
        """
        fits_together = is_attended.shape == keys.shape[:2] and len(keys) == len(queries)
        if fast.applies_to(queries) and fits_together and weights_fit(keys.shape[1]):
            rate = self.dropout if self.training else 0.0
            return attend(
                queries,
                keys,
                is_attended,
                self.projections(),
                self.num_heads,
                rate,
                return_weights=return_weights,
            )
        query, key, value = self.project(queries, keys)
        # Masks that hide nothing change no bit. An accelerator would have to wait for the answer.
        can_ask = fits_together and keys.shape[1] > 0 and is_attended.device.type == "cpu"
        shown = None if can_ask and bool(is_attended.all()) else is_attended
        weights = attention_weights(query @ key.transpose(-2, -1), shown)
        messages = self.output(self.combine(weights, value, shown))
        if shown is not None:
            # The output projection has a bias, which must not speak for a part that is not there.
            messages = messages * shown.any(-1)[:, None, None].to(messages.dtype)
        return messages, weights if return_weights else None

    def _split(self, features: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T d"]:
        num_clips, num_frames, width = features.shape
        heads = features.view(num_clips, num_frames, self.num_heads, width // self.num_heads)
        return heads.transpose(1, 2)


def attention_weights(
    scores: Float[Tensor, "B H Q T"], is_attended: Bool[Tensor, "B T"] | None
) -> Float[Tensor, "B H Q T"]:
    """Softmax over the attended keys, in float32 at least; all 0 where there is none.

    Without a mask every key is attended to.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if is_attended is None:
        return scores.softmax(-1)
    mask = is_attended[:, None, None, :]
    # A finite floor: -inf in a whole row would give NaN, and NaN gradients everywhere.
    floored = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return floored.softmax(-1) * mask


class SelfAttention(nn.Module):
    """Every valid frame attends to every valid frame of its clip (kind `full`)."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        return self.attention(frames, frames, is_valid, return_weights=False)[0]


class FirstFrameAttention(SelfAttention):
    """Full attention whose output at frame 0 goes to every frame (kind `first_frame`).

    This is what the published encoder computes: it takes element 0 of the attention output, so the
    order of the frames is lost. Kept for comparison.
    """

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        return super().forward(frames, is_valid)[:, :1].expand_as(frames)


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
        query, key, value = self.attention.project(frames, frames)
        scores = query @ key.transpose(-2, -1)
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
        weights = attention_weights(scores, is_valid)
        attended = self.attention.combine(weights, value)
        count = is_valid_key.sum(-1, keepdim=True).clamp(min=1)
        mean = (value * is_valid[:, None, :, None]).sum(2, keepdim=True) / count
        return self.attention.output(torch.where(active[..., None], attended, mean))


def num_active_queries(num_frames: Float[Tensor, " B"] | Tensor) -> Tensor:
    """U = min(n, 5 ceil(ln n)) for each clip's n valid frames."""
    return torch.minimum(num_frames, 5 * num_frames.clamp(min=1).log().ceil().long())


def is_among_top(values: Float[Tensor, "*rows T"], count: Tensor) -> Bool[Tensor, "*rows T"]:
    """Whether each value is among the `count` largest of its row; the earlier one wins a tie."""
    order = values.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1) < count


def peakedness(
    scores: Float[Tensor, "B H Q T"], sampled: Bool[Tensor, "B 1 Q T"]
) -> Float[Tensor, "B H Q"]:
    """Highest minus mean score over the sampled keys (Informer, eq. 4)."""
    highest = scores.masked_fill(~sampled, -torch.inf).amax(-1)
    mean = (scores * sampled).sum(-1) / sampled.sum(-1).clamp(min=1)
    return highest - mean


def build_self_attention(
    kind: str, embed_dim: int, num_heads: int, dropout: float
) -> SelfAttention | FirstFrameAttention | ProbSparseAttention:
    """The self-attention that `model.attention` names."""
    match kind:
        case "full":
            return SelfAttention(embed_dim, num_heads, dropout)
        case "first_frame":
            return FirstFrameAttention(embed_dim, num_heads, dropout)
        case "prob":
            return ProbSparseAttention(embed_dim, num_heads, dropout)
    raise ValueError(f"attention kind {kind!r} is not one of full, prob, first_frame")
