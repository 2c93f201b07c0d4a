"""The default model: isolated recurrent encoders, cross-modal attention, a class query.

It keeps SiFormer's method (three streams that are encoded apart, fused by attention, pooled by a
learned query) and changes everything inside by measurement; docs/method.md describes it and
docs/notes/models.md has the numbers.
"""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.attention import join_heads, split_heads
from slrctl.core.model.blocks import (
    BODY_INPUT_DIM,
    HAND_INPUT_DIM,
    ClipPooling,
    FeatureDropout,
    RecurrentBlock,
    initial_log_scale,
    masked_attention,
    masked_weights,
    presence,
    stream_inputs,
    turned,
)
from slrctl.core.model.fusion import (
    CrossModalAttention,
    FusionOutput,
    GatedMessages,
    HandAttention,
    StreamMessages,
    StreamPresence,
    Streams,
    wanted_maps,
)
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import initialise, own_draws
from slrctl.settings import ModelSettings


class StreamEncoder(nn.Module):
    """Encoder of one kind of stream: a projection and recurrent layers."""

    def __init__(self, settings: ModelSettings, input_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(input_dim, settings.embed_dim)
        self.layers = nn.ModuleList(
            RecurrentBlock(settings.embed_dim, settings.dropout)
            for _ in range(settings.num_stream_layers)
        )

    def forward(
        self, inputs: Float[Tensor, "B T F"], is_valid: Bool[Tensor, "B T"]
    ) -> list[Float[Tensor, "B T D"]]:
        """Return the frames after every layer."""
        frames, after_layers = self.projection(inputs), []
        for layer in self.layers:
            frames = layer(frames, is_valid)
            after_layers.append(frames)
        return after_layers


# Reader and read stream of each directed attention, by their places in `Streams`.
_PLACES = {"left": 0, "right": 1, "body": 2}
_READERS, _READ = zip(
    *([_PLACES[name] for name in one.split("_to_")] for one in CrossModalAttention._fields),
    strict=True,
)


class StreamFusion(nn.Module):
    """Six directed attentions; each stream adds its two messages times a learned gate.

    A stream has one projection to queries, keys and values, whichever stream it reads or is read
    by, so the six are computed at once. The gates start at 0: training starts from streams that do
    not read one another.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in Streams._fields)
        self.projections = nn.ModuleList(
            nn.Linear(embed_dim, 3 * embed_dim, bias=False) for _ in Streams._fields
        )
        self.outputs = nn.ModuleList(
            nn.Linear(embed_dim, embed_dim, bias=False) for _ in Streams._fields
        )
        self.log_scale = initial_log_scale(embed_dim, num_heads)
        self.gates = nn.ParameterList(torch.zeros(embed_dim) for _ in Streams._fields)
        self.dropout = FeatureDropout(dropout)

    def forward(
        self,
        streams: Streams,
        present: StreamPresence,
        *,
        wanted: Collection[str] = CrossModalAttention._fields,
    ) -> FusionOutput:
        """Fuse the streams; `wanted` names the maps to return, which change no bit of the rest."""
        projected = torch.stack(
            [
                split_heads(projection(norm(frames)), 3 * self.num_heads)
                for frames, norm, projection in zip(
                    streams, self.norms, self.projections, strict=True
                )
            ]
        )
        query, key, value = projected.chunk(3, dim=2)  # 3 B H T d each
        query, key = turned(query, key, self.log_scale)
        readers, read = list(_READERS), list(_READ)
        key_mask = torch.stack(present)[read]
        query, key, value = query[readers], key[read], value[read]
        heads = masked_attention(
            query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), key_mask.flatten(0, 1)
        )
        messages = [
            self.outputs[reader](join_heads(one))
            for reader, one in zip(readers, heads.chunk(len(readers)), strict=True)
        ]
        gated = StreamMessages(
            *(
                GatedMessages(own, gate.expand_as(own), *messages[2 * place : 2 * place + 2])
                for place, (own, gate) in enumerate(zip(streams, self.gates, strict=True))
            )
        )
        fused = (
            one.own + self.dropout(one.gate * (one.first_message + one.second_message))
            for one in gated
        )
        maps = {
            name: masked_weights(query[row], key[row], key_mask[row])
            for row, name in enumerate(CrossModalAttention._fields)
            if name in wanted
        }
        return FusionOutput(Streams(*fused), maps, gated)


class StreamFormer(nn.Module):
    """Encoders of hands and body, their fusion, a recurrent layer on all three, a class query.

    Input: a `ClipBatch` with placed landmarks. Output: logits `B K`, on request with the
    six cross-modal maps `B H T T` and the three fused streams `B T D`. One encoder reads both
    hands.
    """

    @own_draws
    def __init__(self, settings: ModelSettings, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        width, rate = settings.embed_dim, settings.dropout
        self.hand_encoder = StreamEncoder(settings, HAND_INPUT_DIM)
        self.body_encoder = StreamEncoder(settings, BODY_INPUT_DIM)
        self.fusion = (
            StreamFusion(width, settings.num_heads, rate) if settings.cross_attention else None
        )
        self.join_norm = nn.LayerNorm(3 * width)
        self.join = nn.Linear(3 * width, settings.joint_dim)
        self.joint_layers = nn.ModuleList(
            RecurrentBlock(settings.joint_dim, rate) for _ in range(settings.num_joint_layers)
        )
        self.pooling = ClipPooling(settings.joint_dim, settings.pooling_dropout)
        self.classifier = nn.Linear(2 * settings.joint_dim, num_classes)
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
        """Classify a batch; asking for attention or features changes no bit of the logits.

        Raises:
            ValueError: the batch has no placed landmarks, or attention is asked of a model
                without cross-attention.
        """
        wanted = wanted_maps(
            self.fusion,
            return_attention=return_attention,
            return_hand_attention=return_hand_attention,
        )
        inputs, is_valid = stream_inputs(batch), batch.is_valid
        both_hands = torch.cat([inputs.left_hand, inputs.right_hand])
        hands = self.hand_encoder(both_hands, torch.cat([is_valid, is_valid]))
        bodies = self.body_encoder(inputs.body, is_valid)
        lefts, rights = zip(*(frames.chunk(2) for frames in hands), strict=True)
        layers = list(map(Streams, lefts, rights, bodies))
        streams, maps = layers[-1], {}
        if self.fusion is not None:
            streams, maps, _ = self.fusion(streams, presence(batch), wanted=wanted)
        frames = self.join(self.join_norm(torch.cat(streams, dim=-1)))
        for layer in self.joint_layers:
            frames = layer(frames, is_valid)
        return SiFormerOutput(
            logits=self.classifier(self.pooling(frames, is_valid)),
            attention=CrossModalAttention(**maps) if return_attention else None,
            features=streams if return_features else None,
            layer_features=tuple(layers) if return_layer_features else None,
            hand_attention=HandAttention(*map(maps.get, HandAttention._fields)) if maps else None,
        )
