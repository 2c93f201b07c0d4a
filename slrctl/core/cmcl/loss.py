"""The whole loss: L = CE + lambda_1 * L_consistency + lambda_2 * L_alignment."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import alignment_loss, mean_over_frames
from slrctl.core.cmcl.consistency import consistency_loss
from slrctl.core.cmcl.schedule import adaptive_factor, default_warmup
from slrctl.core.model.fusion import Streams
from slrctl.core.model.initial_values import initialise, own_draws
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.settings import CMCLSettings


class LossTerms(NamedTuple):
    """The loss of a batch and what it is made of; a term that was not computed is None."""

    total: Float[Tensor, ""]
    classification: Float[Tensor, ""]
    consistency: Float[Tensor, ""] | None
    alignment: Float[Tensor, ""] | None
    lambda_consistency: float
    lambda_alignment: float


class StreamProjections(nn.Module):
    """A linear map per stream to a width they share, for alignment only."""

    def __init__(self, projection_dim: int) -> None:
        super().__init__()
        self.left_hand = nn.Linear(HAND_WIDTH, projection_dim)
        self.right_hand = nn.Linear(HAND_WIDTH, projection_dim)
        self.body = nn.Linear(BODY_WIDTH, projection_dim)

    def forward(self, features: Streams, batch: ClipBatch) -> Streams:
        """Project each stream's mean over its present frames: three embeddings `B D`."""
        return Streams(
            self.left_hand(mean_over_frames(features.left_hand, batch.left_is_present)),
            self.right_hand(mean_over_frames(features.right_hand, batch.right_is_present)),
            self.body(mean_over_frames(features.body, batch.is_valid)),
        )


class CrossModalConsistencyLoss(nn.Module):
    """Cross-entropy, consistency and alignment of a batch, under fixed lambdas.

    A term whose lambda is 0 is not computed, and needs nothing of the model's output. The module
    holds the projections of the alignment term, which are trained beside the model and saved with
    the state of the training.
    """

    @own_draws
    def __init__(
        self, settings: CMCLSettings, *, label_smoothing: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.settings = settings
        self.label_smoothing = label_smoothing
        self.projections = (
            StreamProjections(settings.projection_dim) if settings.lambda_alignment > 0 else None
        )
        initialise(self, seed)

    @property
    def needs_attention(self) -> bool:
        return self.settings.lambda_consistency > 0

    @property
    def needs_features(self) -> bool:
        return self.settings.lambda_alignment > 0

    def factor(self, epoch: int) -> float:
        """What both lambdas are multiplied by in an epoch, counted from 0: here always 1."""
        return 1.0

    def forward(self, output: SiFormerOutput, batch: ClipBatch, *, epoch: int = 0) -> LossTerms:
        """Return the loss and its terms, in float32 whatever the model's arithmetic.

        Args:
            output: with attention if `needs_attention`, with features if `needs_features`.
            batch: must hold targets.
            epoch: counted from 0; the lambdas may follow it.
        """
        if batch.target is None:
            raise ValueError(
                "the loss needs targets, but batch.target is None; collate with classes"
            )
        factor = self.factor(epoch)
        lambda_consistency = factor * self.settings.lambda_consistency
        lambda_alignment = factor * self.settings.lambda_alignment
        with torch.autocast(output.logits.device.type, enabled=False):
            classification = F.cross_entropy(
                output.logits.float(), batch.target, label_smoothing=self.label_smoothing
            )
            total, consistency, alignment = classification, None, None
            if self.needs_attention:
                consistency = self.consistency(output, batch)
                total = total + lambda_consistency * consistency
            if self.needs_features:
                alignment = self.alignment(output, batch)
                total = total + lambda_alignment * alignment
        return LossTerms(
            total, classification, consistency, alignment, lambda_consistency, lambda_alignment
        )

    def consistency(self, output: SiFormerOutput, batch: ClipBatch) -> Float[Tensor, ""]:
        """The consistency term alone."""
        if output.attention is None:
            raise ValueError(
                "consistency needs the maps: call the model with return_attention=True"
            )
        return consistency_loss(
            output.attention.left_to_right,
            output.attention.right_to_left,
            batch.left_is_present,
            batch.right_is_present,
            temperature=self.settings.temperature,
            divergence=self.settings.divergence,
        )

    def alignment(self, output: SiFormerOutput, batch: ClipBatch) -> Float[Tensor, ""]:
        """The alignment term alone."""
        if output.features is None or self.projections is None:
            raise ValueError(
                "alignment needs features (call the model with return_features=True) "
                "and a lambda_alignment above 0"
            )
        left, right, body = self.projections(output.features, batch)
        return alignment_loss(
            left, right, body, batch.left_is_present.any(-1), batch.right_is_present.any(-1)
        )


class AdaptiveCMCL(CrossModalConsistencyLoss):
    """CMCL with lambdas that warm up over the first epochs and then decay."""

    def __init__(
        self,
        settings: CMCLSettings,
        *,
        num_epochs: int,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(settings, label_smoothing=label_smoothing, seed=seed)
        self.warmup_epochs = settings.warmup_epochs or default_warmup(num_epochs)

    def factor(self, epoch: int) -> float:
        """What both lambdas are multiplied by in an epoch, counted from 0."""
        return adaptive_factor(epoch, self.warmup_epochs, self.settings.decay)


def build_loss(
    settings: CMCLSettings, *, num_epochs: int, label_smoothing: float, seed: int
) -> CrossModalConsistencyLoss:
    """The loss the settings name: adaptive or with fixed lambdas."""
    if settings.adaptive:
        return AdaptiveCMCL(
            settings, num_epochs=num_epochs, label_smoothing=label_smoothing, seed=seed
        )
    return CrossModalConsistencyLoss(settings, label_smoothing=label_smoothing, seed=seed)
