"""The whole loss: L = CE + lambda_1 * L_consistency + lambda_2 * L_alignment."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import alignment_loss
from slrctl.core.cmcl.batch_parts import WHOLE, Gather, TermWeights, own_rows
from slrctl.core.cmcl.consistency import consistency_loss
from slrctl.core.cmcl.contrastive import contrastive_loss
from slrctl.core.cmcl.cycle import cycle_loss
from slrctl.core.cmcl.projections import StreamProjections, stream_means
from slrctl.core.cmcl.schedule import adaptive_factor, default_warmup
from slrctl.core.cmcl.temporal import temporal_loss
from slrctl.core.model.fusion import HandAttention, Streams
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import initialise, own_draws
from slrctl.settings import CMCLSettings, Settings


class LossTerms(NamedTuple):
    """The loss of a batch and what it is made of; a term that was not computed is None.

    Of a part of a batch they are the part's summands of the whole's.
    """

    total: Float[Tensor, ""]
    classification: Float[Tensor, ""]
    consistency: Float[Tensor, ""] | None
    alignment: Float[Tensor, ""] | None
    lambda_consistency: float
    lambda_alignment: float


class CrossModalConsistencyLoss(nn.Module):
    """Cross-entropy, consistency and alignment of a batch, under fixed lambdas.

    A term whose lambda is 0 is not computed, and needs nothing of the model's output. The module
    holds the projections of the alignment term, which are trained beside the model and saved with
    the state of the training; in the multi-scale form, one set more for every encoder layer.
    """

    @own_draws
    def __init__(
        self,
        settings: CMCLSettings,
        *,
        label_smoothing: float = 0.0,
        num_encoder_layers: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.label_smoothing = label_smoothing
        is_aligned = settings.lambda_alignment > 0
        num_layers = num_encoder_layers if is_aligned and settings.multi_scale else 0
        self.projections = StreamProjections(settings.projection_dim) if is_aligned else None
        self.layer_projections = nn.ModuleList(
            StreamProjections(settings.projection_dim) for _ in range(num_layers)
        )
        initialise(self, seed)

    @property
    def needs_attention(self) -> bool:
        return self.settings.lambda_consistency > 0

    @property
    def needs_features(self) -> bool:
        return self.settings.lambda_alignment > 0

    @property
    def needs_layer_features(self) -> bool:
        return self.needs_features and self.settings.multi_scale

    def factor(self, epoch: int) -> float:
        """What both lambdas are multiplied by in an epoch, counted from 0: here always 1."""
        return 1.0

    def forward(
        self,
        output: SiFormerOutput,
        batch: ClipBatch,
        *,
        epoch: int = 0,
        weights: TermWeights = WHOLE,
        gather: Gather = own_rows,
    ) -> LossTerms:
        """Return the loss and its terms, in float32 whatever the model's arithmetic.

        Args:
            output: with hand attention if `needs_attention`, with features if `needs_features`,
                with layer features if `needs_layer_features`.
            batch: must hold targets.
            epoch: counted from 0; the lambdas may follow it.
            weights: what the clips count for, where they are a part of a batch.
            gather: makes the rows of all parts of them, where workers have a part each.
        """
        if batch.target is None:
            raise ValueError(
                "the loss needs targets, but batch.target is None; collate with classes"
            )
        factor = self.factor(epoch)
        lambda_consistency = factor * self.settings.lambda_consistency
        lambda_alignment = factor * self.settings.lambda_alignment
        with torch.autocast(output.logits.device.type, enabled=False):
            classification = weights.classification * F.cross_entropy(
                output.logits.float(), batch.target, label_smoothing=self.label_smoothing
            )
            total, consistency, alignment = classification, None, None
            if self.needs_attention:
                consistency = self.consistency(output, batch, weights)
                total = total + lambda_consistency * consistency
            if self.needs_features:
                alignment = weights.alignment * self.alignment(output, batch, gather)
                total = total + lambda_alignment * alignment
        return LossTerms(
            total, classification, consistency, alignment, lambda_consistency, lambda_alignment
        )

    def consistency(
        self, output: SiFormerOutput, batch: ClipBatch, weights: TermWeights = WHOLE
    ) -> Float[Tensor, ""]:
        """The consistency term alone, in the form the settings name."""
        if output.hand_attention is None:
            raise ValueError(
                "consistency needs the maps: call the model with return_hand_attention=True"
            )
        return consistency_term(output.hand_attention, batch, self.settings, weights)

    def alignment(
        self, output: SiFormerOutput, batch: ClipBatch, gather: Gather = own_rows
    ) -> Float[Tensor, ""]:
        """The alignment term alone, in the form the settings name."""
        if batch.target is None:
            raise ValueError("alignment needs targets; collate the clips with their classes")
        embeddings = self.embeddings(output, batch)
        masks = batch.left_is_present.any(-1), batch.right_is_present.any(-1), batch.target
        if self.settings.alignment == "cosine":
            return self.alignment_of(embeddings, *masks)
        together = [Streams._make(map(gather, streams)) for streams in embeddings]
        return self.alignment_of(together, *map(gather, masks))

    def embeddings(self, output: SiFormerOutput, batch: ClipBatch) -> list[Streams]:
        """The projected streams of each clip, after the fusion and then after every layer used."""
        if output.features is None or self.projections is None:
            raise ValueError(
                "alignment needs features (call the model with return_features=True) "
                "and a lambda_alignment above 0"
            )
        fused = self.projections(*stream_means(output.features, batch))
        if not self.needs_layer_features:
            return [fused]
        if output.layer_features is None:
            raise ValueError(
                "multi-scale alignment needs the streams after every layer: "
                "call the model with return_layer_features=True"
            )
        by_layer = zip(self.layer_projections, output.layer_features, strict=True)
        return [fused, *(project(*stream_means(streams, batch)) for project, streams in by_layer)]

    def alignment_of(
        self,
        embeddings: Sequence[Streams],
        has_left: Bool[Tensor, " B"],
        has_right: Bool[Tensor, " B"],
        target: Int64[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """The alignment term of projected embeddings, the mean over the scales."""
        terms = [
            alignment_loss(*streams, has_left, has_right)
            if self.settings.alignment == "cosine"
            else contrastive_loss(
                *streams,
                target,
                has_left,
                has_right,
                temperature=self.settings.contrastive_temperature,
            )
            for streams in embeddings
        ]
        return torch.stack(terms).mean()


def consistency_term(
    attention: HandAttention,
    batch: ClipBatch,
    settings: CMCLSettings,
    weights: TermWeights = WHOLE,
) -> Float[Tensor, ""]:
    """Consistency of the maps between the hands in the form the settings name."""
    maps = (
        attention.left_to_right,
        attention.right_to_left,
        batch.left_is_present,
        batch.right_is_present,
    )
    temperature, divergence = settings.temperature, settings.divergence
    if settings.consistency == "kl":
        term = consistency_loss(*maps, temperature=temperature, divergence=divergence)
    else:
        term = cycle_loss(*maps)
    term = weights.consistency * term
    if settings.temporal:
        term = term + weights.temporal * temporal_loss(
            *maps, temperature=temperature, divergence=divergence
        )
    return term


class AdaptiveCMCL(CrossModalConsistencyLoss):
    """CMCL with lambdas that warm up over the first epochs and then decay."""

    def __init__(
        self,
        settings: CMCLSettings,
        *,
        num_epochs: int,
        label_smoothing: float = 0.0,
        num_encoder_layers: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(
            settings,
            label_smoothing=label_smoothing,
            num_encoder_layers=num_encoder_layers,
            seed=seed,
        )
        self.warmup_epochs = settings.warmup_epochs or default_warmup(num_epochs)

    def factor(self, epoch: int) -> float:
        """What both lambdas are multiplied by in an epoch, counted from 0."""
        return adaptive_factor(epoch, self.warmup_epochs, self.settings.decay)


def build_loss(settings: Settings) -> CrossModalConsistencyLoss:
    """The loss the settings name: adaptive or with fixed lambdas."""
    if settings.cmcl.adaptive:
        return AdaptiveCMCL(
            settings.cmcl,
            num_epochs=settings.train.epochs,
            label_smoothing=settings.train.label_smoothing,
            num_encoder_layers=settings.model.num_encoder_layers,
            seed=settings.seed,
        )
    return CrossModalConsistencyLoss(
        settings.cmcl,
        label_smoothing=settings.train.label_smoothing,
        num_encoder_layers=settings.model.num_encoder_layers,
        seed=settings.seed,
    )
