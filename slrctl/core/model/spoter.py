"""SPOTER, the comparison: one encoder over all landmarks (Bohacek, Hruz, WACVW 2022)."""

import torch
from torch import nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.decoder import ClassDecoder
from slrctl.core.model.encoder import StreamEncoder
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import initialise, own_draws
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.settings import ModelSettings


class Spoter(nn.Module):
    """The same decoder as SiFormer's behind a single encoder of 108 features a frame."""

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
