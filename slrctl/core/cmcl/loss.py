"""The loss of training: L = CE + lambda_1 * L_consistency + lambda_2 * L_alignment.

A term is a mean over the clips that contribute to it, or a sum of such means. Which clips those are
follows from a batch alone, before the model runs. So the sums over a micro-batch can be divided by
the counts of the whole batch, and the losses of its micro-batches add up to its own.

A new term takes a setting `cmcl.lambda_<name>` and a case in both `contributing` and `per_clip`;
training, validation, logs and diagnostics follow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import (
    ClipFacts,
    Contrast,
    StreamProjections,
    aligned_per_clip,
    is_aligned,
    stream_means,
)
from slrctl.core.cmcl.consistency import (
    HandMaps,
    consistency_per_clip,
    cycle_per_clip,
    has_cycles,
    has_successive_frames,
    shows_both_hands,
    temporal_per_clip,
)
from slrctl.core.model.build import num_stream_layers, stream_dims
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import initialise, own_draws
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.settings import CMCL_TERMS, CMCLSettings, Settings

TERMS = ("classification", *CMCL_TERMS)
SIFORMER_STREAM_DIMS = HAND_WIDTH, HAND_WIDTH, BODY_WIDTH


def surprise(
    logits: Float[Tensor, "B K"], target: Int64[Tensor, " B"], label_smoothing: float = 0.0
) -> Float[Tensor, " B"]:
    """Return the cross-entropy of each clip."""
    logits = logits.float()
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)


@dataclass(frozen=True)
class LossTerms:
    """The terms of a loss that were computed, by name, and the lambdas in force."""

    terms: dict[str, Float[Tensor, ""]]
    lambdas: dict[str, float]

    @property
    def total(self) -> Float[Tensor, ""]:
        return torch.stack([self.lambdas[name] * term for name, term in self.terms.items()]).sum()

    @property
    def classification(self) -> Float[Tensor, ""]:
        return self.terms["classification"]

    @property
    def consistency(self) -> Float[Tensor, ""] | None:
        return self.terms.get("consistency")

    @property
    def alignment(self) -> Float[Tensor, ""] | None:
        return self.terms.get("alignment")


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
        stream_dims: Sequence[int] = SIFORMER_STREAM_DIMS,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.label_smoothing = label_smoothing
        num_layers = num_encoder_layers if self.needs_layer_features else 0
        width = settings.projection_dim
        self.projections = StreamProjections(width, stream_dims) if self.needs_features else None
        self.layer_projections = nn.ModuleList(
            StreamProjections(width, stream_dims) for _ in range(num_layers)
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

    @property
    def is_contrastive(self) -> bool:
        """True if the alignment of a clip depends on the other clips of its batch."""
        return self.needs_features and self.settings.alignment == "contrastive"

    def factor(self, epoch: int) -> float:
        """Return the factor of every lambda in an epoch, counted from 0."""
        return 1.0

    def lambdas(self, epoch: int) -> dict[str, float]:
        """Return the weight of every term in an epoch, counted from 0."""
        cmcl = {name: getattr(self.settings, f"lambda_{name}") for name in CMCL_TERMS}
        return {"classification": 1.0, **{n: self.factor(epoch) * cmcl[n] for n in cmcl}}

    @property
    def trained_terms(self) -> list[str]:
        """The terms whose lambda is above 0."""
        return [name for name, weight in self.lambdas(epoch=0).items() if weight > 0]

    def num_means(self, name: str) -> int:
        """Count the means over clips that a term is the sum of."""
        return 2 if name == "consistency" and self.settings.temporal else 1

    def contributing(
        self, name: str, batch: ClipBatch, contrast: Contrast | None = None
    ) -> list[Bool[Tensor, " B"]]:
        """Select the clips that contribute to each of the means that make up a term."""
        left, right = batch.left_is_present, batch.right_is_present
        match name:
            case "classification":
                return [torch.ones(len(batch), dtype=torch.bool, device=left.device)]
            case "consistency":
                form = shows_both_hands if self.settings.consistency == "kl" else has_cycles
                temporal = [has_successive_frames(left, right)] if self.settings.temporal else []
                return [form(left, right), *temporal]
            case "alignment" if contrast is not None:
                return [contrast.contributes]
            case "alignment":
                return [is_aligned(ClipFacts.of(batch), self.settings)]
        raise ValueError(f"{name!r} is not one of the terms {TERMS}")

    def per_clip(
        self, name: str, output: SiFormerOutput, batch: ClipBatch, contrast: Contrast | None = None
    ) -> list[Float[Tensor, " B"]]:
        """Return the values of clips behind each of these means; 0 for a clip outside of it."""
        clips, settings = ClipFacts.of(batch), self.settings
        match name:
            case "classification":
                return [surprise(output.logits, clips.target, self.label_smoothing)]
            case "consistency":
                if output.hand_attention is None:
                    raise ValueError(
                        "consistency needs the maps: call the model with return_hand_attention=True"
                    )
                presence = batch.left_is_present, batch.right_is_present
                maps = HandMaps.averaged(*output.hand_attention, *presence)
                compared = settings.temperature, settings.divergence
                is_kl = settings.consistency == "kl"
                form = consistency_per_clip(maps, *compared) if is_kl else cycle_per_clip(maps)
                return [form, *([temporal_per_clip(maps, *compared)] if settings.temporal else [])]
            case "alignment" if contrast is not None:
                return [contrast.per_clip(self.embeddings(output, batch))]
            case "alignment":
                return [aligned_per_clip(self.embeddings(output, batch), clips, settings)]
        raise ValueError(f"{name!r} is not one of the terms {TERMS}")

    def embeddings(self, output: SiFormerOutput, batch: ClipBatch) -> Float[Tensor, "S 3 B D"]:
        """Project the streams of each clip, after the fusion and then after every layer used."""
        layers = output.layer_features if self.needs_layer_features else ()
        if output.features is None or layers is None or self.projections is None:
            raise ValueError(
                "alignment needs a lambda_alignment above 0, and features: call the model with "
                "return_features=True, in the multi-scale form with return_layer_features=True too"
            )
        scales = zip(
            [self.projections, *self.layer_projections], [output.features, *layers], strict=True
        )
        return torch.stack([project(stream_means(streams, batch)) for project, streams in scales])

    def forward(
        self,
        output: SiFormerOutput,
        batch: ClipBatch,
        *,
        epoch: int = 0,
        counts: Mapping[str, Sequence[int]] | None = None,
        contrast: Contrast | None = None,
    ) -> LossTerms:
        """Return the loss and its terms, in float32 whatever the model's arithmetic.

        Args:
            output: with hand attention if `needs_attention`, with features if `needs_features`,
                with layer features if `needs_layer_features`.
            batch: must hold targets.
            epoch: counted from 0; the lambdas may follow it.
            counts: for a micro-batch, the clips of the whole batch that contribute to each mean of
                each term.
            contrast: for a micro-batch, its contrastive alignment within the whole batch.
        """
        terms = {}
        with torch.autocast(output.logits.device.type, enabled=False):
            for name in self.trained_terms:
                values = torch.stack(self.per_clip(name, output, batch, contrast))
                if counts is None:
                    divisors = torch.stack(self.contributing(name, batch, contrast)).sum(-1)
                else:
                    divisors = values.new_tensor(counts[name])
                terms[name] = (values.sum(-1) / divisors.clamp(min=1)).sum()
        return LossTerms(terms, self.lambdas(epoch))


class AdaptiveCMCL(CrossModalConsistencyLoss):
    """CMCL with lambdas that warm up over the first epochs and then decay."""

    def __init__(
        self,
        settings: CMCLSettings,
        *,
        num_epochs: int,
        label_smoothing: float = 0.0,
        num_encoder_layers: int = 3,
        stream_dims: Sequence[int] = SIFORMER_STREAM_DIMS,
        seed: int = 0,
    ) -> None:
        super().__init__(
            settings,
            label_smoothing=label_smoothing,
            num_encoder_layers=num_encoder_layers,
            stream_dims=stream_dims,
            seed=seed,
        )
        self.warmup_epochs = settings.warmup_epochs or default_warmup(num_epochs)

    def factor(self, epoch: int) -> float:
        """Return the factor of every lambda in an epoch, counted from 0."""
        return adaptive_factor(epoch, self.warmup_epochs, self.settings.decay)


def adaptive_factor(epoch: int, warmup_epochs: int = 10, decay: float = 0.95) -> float:
    """Return the factor of every lambda in an epoch, counted from 0.

    (epoch + 1) / warmup_epochs during the warm-up, which reaches 1 in its last epoch; then `decay`
    once for every epoch after it. Never 0.
    """
    if epoch < warmup_epochs:
        return (epoch + 1) / warmup_epochs
    return decay ** (epoch - warmup_epochs + 1)


def default_warmup(num_epochs: int) -> int:
    """Return 10 epochs; in a run under 100, a tenth of it."""
    return 10 if num_epochs >= 100 else math.ceil(0.1 * num_epochs)


def build_loss(settings: Settings) -> CrossModalConsistencyLoss:
    """Build the loss the settings name: adaptive or with fixed lambdas."""
    of_model: dict[str, Any] = {
        "label_smoothing": settings.train.label_smoothing,
        "num_encoder_layers": num_stream_layers(settings.model),
        "stream_dims": stream_dims(settings.model),
        "seed": settings.seed,
    }
    if not settings.cmcl.adaptive:
        return CrossModalConsistencyLoss(settings.cmcl, **of_model)
    return AdaptiveCMCL(settings.cmcl, num_epochs=settings.train.epochs, **of_model)
