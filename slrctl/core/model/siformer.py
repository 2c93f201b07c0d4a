"""The models: SiFormer (Pu, Lim, Chong, ACM MM 2024, arXiv 2503.20436), and SPOTER to compare."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.fusion import (
    CrossModalAttention,
    CrossModalAttentionFusion,
    HandAttention,
    StreamPresence,
    Streams,
    wanted_maps,
)
from slrctl.core.model.transformer import ClassDecoder, StreamEncoder
from slrctl.core.seeding import initialise, own_draws
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.settings import ModelSettings


class SiFormerOutput(NamedTuple):
    """The output of a model for a batch; all but the logits only where it was asked for.

    `hand_attention` are the two maps between the hands, which come with `attention` too. `features`
    are the fused streams, `layer_features` the streams after every encoder layer.
    """

    logits: Float[Tensor, "B K"]
    attention: CrossModalAttention | None = None
    features: Streams | None = None
    layer_features: tuple[Streams, ...] | None = None
    hand_attention: HandAttention | None = None


class SiFormer(nn.Module):
    """Encoders for both hands and the body, their fusion, and a decoder that classifies the clip.

    Input: a `ClipBatch` with streams of 42, 42 and 24 features a frame. Output: logits `B K`, on
    request with the six cross-modal maps `B H T T` and the three fused streams `B T D`.
    """

    @own_draws
    def __init__(self, settings: ModelSettings, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        self.left_encoder = StreamEncoder(settings, HAND_WIDTH, settings.hand_heads)
        self.right_encoder = StreamEncoder(settings, HAND_WIDTH, settings.hand_heads)
        self.body_encoder = StreamEncoder(settings, BODY_WIDTH, settings.body_heads)
        self.fusion = (
            CrossModalAttentionFusion(
                HAND_WIDTH, BODY_WIDTH, settings.fusion_heads, settings.dropout
            )
            if settings.cross_attention
            else None
        )
        memory_width = 2 * HAND_WIDTH + BODY_WIDTH
        self.decoder = ClassDecoder(settings, memory_width)
        self.classifier = nn.Linear(memory_width, num_classes)
        initialise(self, seed)

    def encoders(self) -> dict[str, StreamEncoder]:
        """Return the encoder of each stream, by the name of the stream."""
        encoders = self.left_encoder, self.right_encoder, self.body_encoder
        return dict(zip(Streams._fields, encoders, strict=True))

    def forward(
        self,
        batch: ClipBatch,
        *,
        return_attention: bool = False,
        return_features: bool = False,
        return_layer_features: bool = False,
        return_hand_attention: bool = False,
    ) -> SiFormerOutput:
        """Classify a batch; asking for attention or features changes no bit of the logits.

        Raises:
            ValueError: a clip is longer than `max_frames`, or attention is asked of a model
                without cross-attention.
        """
        wanted = wanted_maps(
            self.fusion,
            return_attention=return_attention,
            return_hand_attention=return_hand_attention,
        )
        left, left_layers = self.left_encoder(batch.left_hand, batch.is_valid)
        right, right_layers = self.right_encoder(batch.right_hand, batch.is_valid)
        body, body_layers = self.body_encoder(batch.body, batch.is_valid)
        streams, maps = Streams(left, right, body), {}
        if self.fusion is not None:
            present = StreamPresence(batch.left_is_present, batch.right_is_present, batch.is_valid)
            streams, maps, _ = self.fusion(streams, present, wanted=wanted)
        clip_features = self.decoder(torch.cat(streams, dim=-1), batch.is_valid)
        return SiFormerOutput(
            logits=self.classifier(clip_features),
            attention=CrossModalAttention(**maps) if return_attention else None,
            features=streams if return_features else None,
            layer_features=tuple(map(Streams, left_layers, right_layers, body_layers))
            if return_layer_features
            else None,
            hand_attention=HandAttention(*map(maps.get, HandAttention._fields)) if maps else None,
        )


class Spoter(nn.Module):
    """One encoder of 108 features a frame before SiFormer's decoder (Bohacek, Hruz, WACVW 2022)."""

    fusion = None

    @own_draws
    def __init__(self, settings: ModelSettings, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        embed_dim = 2 * HAND_WIDTH + BODY_WIDTH
        self.encoder = StreamEncoder(settings, embed_dim, settings.decoder_heads)
        self.decoder = ClassDecoder(settings, embed_dim)
        self.classifier = nn.Linear(embed_dim, num_classes)
        initialise(self, seed)

    def forward(
        self,
        batch: ClipBatch,
        *,
        return_attention: bool = False,
        return_features: bool = False,
        return_layer_features: bool = False,
        return_hand_attention: bool = False,
    ) -> SiFormerOutput:
        """Classify a batch: logits `B K`. There are no streams, so neither maps nor features.

        Raises:
            ValueError: attention between the streams, or their features, was asked for.
        """
        if return_attention or return_features or return_layer_features or return_hand_attention:
            raise ValueError(
                "spoter has one stream, so it has no cross-modal attention and no features to "
                "give; build model.name = 'siformer' for them"
            )
        frames = torch.cat([batch.left_hand, batch.right_hand, batch.body], dim=-1)
        memory, _ = self.encoder(frames, batch.is_valid)
        return SiFormerOutput(self.classifier(self.decoder(memory, batch.is_valid)))
