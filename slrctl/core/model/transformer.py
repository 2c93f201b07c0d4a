"""The transformer layers: the encoder of one stream, and the decoder that pools all of them."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.model.attention import MultiHeadAttention, build_self_attention, dropout
from slrctl.settings import ModelSettings


class FeedForward(nn.Module):
    """Two linear layers, between them ReLU and dropout."""

    def __init__(self, embed_dim: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(embed_dim, ffn_dim)
        self.contract = nn.Linear(ffn_dim, embed_dim)
        self.dropout = dropout

    def forward(self, features: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        units = F.relu(self.expand(features))
        return self.contract(dropout(units, self.dropout, self.training))


def residual(
    features: Float[Tensor, "B T D"],
    change: Float[Tensor, "B T D"],
    norm: nn.LayerNorm,
    rate: float,
    is_training: bool,
) -> Float[Tensor, "B T D"]:
    """Add a change after dropout, and normalise the sum."""
    return norm(features + dropout(change, rate, is_training))


class EncoderLayer(nn.Module):
    """One post-norm layer: attention and feed-forward, each added and then normalised."""

    def __init__(
        self, embed_dim: int, num_heads: int, ffn_dim: int, dropout: float, attention: str
    ) -> None:
        super().__init__()
        self.attention = build_self_attention(attention, embed_dim, num_heads, dropout)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, dropout)
        self.norm_attention = nn.LayerNorm(embed_dim)
        self.norm_feed_forward = nn.LayerNorm(embed_dim)
        self.dropout = dropout

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        attended = self.attention(frames, is_valid)
        frames = residual(frames, attended, self.norm_attention, self.dropout, self.training)
        changed = self.feed_forward(frames)
        return residual(frames, changed, self.norm_feed_forward, self.dropout, self.training)


class StreamEncoder(nn.Module):
    """Encoder of one stream, which does not see the others.

    Each stream has its own table of positions. (The published table repeats one number over
    all features of a frame, which LayerNorm removes, and is shared by both hands.)
    """

    def __init__(self, settings: ModelSettings, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(sinusoid(settings.max_frames, embed_dim))
        self.layers = nn.ModuleList(
            EncoderLayer(
                embed_dim, num_heads, settings.ffn_dim, settings.dropout, settings.attention
            )
            for _ in range(settings.num_encoder_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, frames: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], list[Float[Tensor, "B T D"]]]:
        """Return the encoded frames, and the frames after every layer."""
        num_frames, max_frames = frames.shape[1], len(self.positions)
        if num_frames > max_frames:
            raise ValueError(
                f"a clip of {num_frames} frames is longer than model.max_frames ({max_frames}); "
                "resample it first"
            )
        frames = frames + self.positions[:num_frames]
        after_layers = []
        for layer in self.layers:
            frames = layer(frames, is_valid)
            after_layers.append(frames)
        return self.norm(frames), after_layers


def sinusoid(num_frames: int, embed_dim: int, amplitude: float = 0.1) -> Float[Tensor, "T D"]:
    """Return sines and cosines of falling frequency (Vaswani et al. 2017, sec. 3.5), scaled down.

    Landmark features lie within about half a box, so waves of height 1 would drown them. Computed
    on the CPU, a table has the same bits on whatever device the model is built.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):
        frames = torch.arange(num_frames, dtype=torch.float64)[:, None]
        frequencies = torch.exp(torch.arange(0, embed_dim, 2) * (-math.log(10_000.0) / embed_dim))
        table = torch.zeros(num_frames, embed_dim, dtype=torch.float64)
        table[:, 0::2] = torch.sin(frames * frequencies)
        table[:, 1::2] = torch.cos(frames * frequencies[: embed_dim // 2])
        return (amplitude * table).float().to(device)


class DecoderLayer(nn.Module):
    """A layer without self-attention: with one query it would only attend to itself (SPOTER)."""

    def __init__(self, embed_dim: int, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, dropout)
        self.norm_query = nn.LayerNorm(embed_dim)
        self.norm_attention = nn.LayerNorm(embed_dim)
        self.norm_feed_forward = nn.LayerNorm(embed_dim)
        self.dropout = dropout

    def forward(
        self,
        query: Float[Tensor, "B 1 D"],
        memory: Float[Tensor, "B T D"],
        is_valid: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B 1 D"]:
        query = residual(query, query, self.norm_query, self.dropout, self.training)
        message, _ = self.attention(query, memory, is_valid)
        query = residual(query, message, self.norm_attention, self.dropout, self.training)
        changed = self.feed_forward(query)
        return residual(query, changed, self.norm_feed_forward, self.dropout, self.training)


class ClassDecoder(nn.Module):
    """Cross-attention from a learned query, which pools the frames into one vector per clip."""

    def __init__(self, settings: ModelSettings, embed_dim: int) -> None:
        super().__init__()
        self.class_query = nn.Parameter(torch.zeros(1, embed_dim))
        self.layers = nn.ModuleList(
            DecoderLayer(embed_dim, settings.decoder_heads, settings.ffn_dim, settings.dropout)
            for _ in range(settings.num_decoder_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, memory: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B D"]:
        query = self.class_query.expand(len(memory), 1, -1)
        for layer in self.layers:
            query = layer(query, memory, is_valid)
        return self.norm(query)[:, 0]
