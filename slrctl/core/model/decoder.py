"""The decoder: one learned class query reads the frames of all streams."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.encoder import FeedForward, residual
from slrctl.settings import ModelSettings


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
