"""Plain networks over all features of a frame at once, to compare with."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.blocks import (
    BODY_INPUT_DIM,
    HAND_INPUT_DIM,
    AttentionBlock,
    ClipPooling,
    ConvolutionBlock,
    RecurrentBlock,
    stream_inputs,
)
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import initialise, own_draws
from slrctl.settings import ModelSettings


class PlainNetwork(nn.Module):
    """Blocks over the joined features of both hands and the body, and a class query.

    `gru` is two recurrent layers, `conv` twice two convolutions and a self-attention. They read the
    features that `StreamFormer` reads.
    """

    fusion = None

    @own_draws
    def __init__(self, settings: ModelSettings, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        width, rate = settings.joint_dim, settings.dropout
        self.projection = nn.Linear(2 * HAND_INPUT_DIM + BODY_INPUT_DIM, width)
        blocks: list[nn.Module] = []
        if settings.name == "gru":
            blocks = [RecurrentBlock(width, rate) for _ in range(2)]
        else:
            for _ in range(2):
                blocks += [ConvolutionBlock(width, settings.kernel_size, rate) for _ in range(2)]
                blocks.append(AttentionBlock(width, settings.num_heads, rate))
        self.layers = nn.ModuleList(blocks)
        self.pooling = ClipPooling(width, settings.pooling_dropout)
        self.classifier = nn.Linear(2 * width, num_classes)
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
            ValueError: the batch has no placed landmarks; or attention between the streams,
                or their features, was asked for.
        """
        if return_attention or return_features or return_layer_features or return_hand_attention:
            raise ValueError(
                "gru and conv have one stream, so they have no cross-modal attention and no "
                "features to give; build model.name = 'streamformer' for them"
            )
        frames: Float[Tensor, "B T D"] = self.projection(torch.cat(stream_inputs(batch), dim=-1))
        for layer in self.layers:
            frames = layer(frames, batch.is_valid)
        return SiFormerOutput(self.classifier(self.pooling(frames, batch.is_valid)))
