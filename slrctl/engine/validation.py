"""What a model does on the validation clips after an epoch: accuracy, loss, diagnostics."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import alignment_loss, mean_over_frames
from slrctl.core.cmcl.consistency import consistency_loss
from slrctl.core.cmcl.diagnostics import effective_rank, entropy_ratio, feature_variance
from slrctl.core.cmcl.loss import CrossModalConsistencyLoss
from slrctl.core.model import SiFormer, Spoter
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.errors import TrainingDiverged


class _Pass(NamedTuple):
    """What is kept of the batches, in CPU memory."""

    is_right: list[Tensor]
    negative_log_likelihood: list[Tensor]
    left: list[Tensor]
    right: list[Tensor]
    body: list[Tensor]
    has_left: list[Tensor]
    has_right: list[Tensor]
    consistency: list[Tensor]
    entropy: dict[str, list[tuple[float, int]]]


@torch.no_grad()
def validate(
    model: SiFormer | Spoter,
    loss: CrossModalConsistencyLoss,
    batches: Iterable[ClipBatch],
    device: torch.device,
    epoch: int,
) -> dict[str, Any]:
    """Evaluate in fp32 and return the `val_` columns of `metrics.jsonl`.

    Means are over clips, or over those that contribute to the term: the batch size changes
    nothing. Without cross-attention the terms of CMCL are left out.

    Raises:
        TrainingDiverged: the model gives a loss that is not finite.
    """
    model.eval()
    has_maps = isinstance(model, SiFormer) and model.fusion is not None
    kept = _Pass([], [], [], [], [], [], [], [], {"left_to_right": [], "right_to_left": []})
    for batch in batches:
        batch = batch.to(device)
        output = model(batch, return_attention=has_maps, return_features=has_maps)
        _keep_logits(kept, output, batch)
        if has_maps:
            _keep_maps(kept, output, batch, loss)
    metrics: dict[str, Any] = {
        "val_accuracy": float(torch.cat(kept.is_right).double().mean()),
        "val_classification": float(torch.cat(kept.negative_log_likelihood).double().mean()),
    }
    if not math.isfinite(metrics["val_classification"]):
        raise TrainingDiverged(
            f"epoch {epoch + 1}: the validation loss is {metrics['val_classification']}, "
            "which must be finite; lower --learning-rate"
        )
    if has_maps:
        metrics |= _map_metrics(kept, is_projected=loss.projections is not None)
    metrics["val_loss"] = _total(metrics, loss, epoch)
    return metrics


def _keep_logits(kept: _Pass, output: SiFormerOutput, batch: ClipBatch) -> None:
    if batch.target is None:
        raise ValueError("validation needs targets; collate the clips with their classes")
    kept.is_right.append((output.logits.argmax(-1) == batch.target).cpu())
    kept.negative_log_likelihood.append(
        F.cross_entropy(output.logits.float(), batch.target, reduction="none").cpu()
    )


def _keep_maps(
    kept: _Pass, output: SiFormerOutput, batch: ClipBatch, loss: CrossModalConsistencyLoss
) -> None:
    maps, features = output.attention, output.features
    if maps is None or features is None:
        raise ValueError("the model gave no maps; it has no cross-attention")
    left, right = batch.left_is_present, batch.right_is_present
    kept.entropy["left_to_right"].append(entropy_ratio(maps.left_to_right, left, right))
    kept.entropy["right_to_left"].append(entropy_ratio(maps.right_to_left, right, left))
    embeddings = (
        loss.projections(features, batch)
        if loss.projections is not None
        else (
            mean_over_frames(features.left_hand, left),
            mean_over_frames(features.right_hand, right),
            mean_over_frames(features.body, batch.is_valid),
        )
    )
    for place, embedding in zip((kept.left, kept.right, kept.body), embeddings, strict=True):
        place.append(embedding.cpu())
    kept.has_left.append(left.any(-1).cpu())
    kept.has_right.append(right.any(-1).cpu())
    num_both = int((left.any(-1) & right.any(-1)).sum())
    if num_both:
        term = consistency_loss(
            maps.left_to_right,
            maps.right_to_left,
            left,
            right,
            temperature=loss.settings.temperature,
            divergence=loss.settings.divergence,
        )
        kept.consistency.append(torch.tensor([float(term)] * num_both, dtype=torch.float64))


def _map_metrics(kept: _Pass, *, is_projected: bool) -> dict[str, Any]:
    has_left, has_right = torch.cat(kept.has_left), torch.cat(kept.has_right)
    left, right, body = torch.cat(kept.left), torch.cat(kept.right), torch.cat(kept.body)
    consistency = torch.cat(kept.consistency) if kept.consistency else None
    metrics: dict[str, Any] = {
        "val_consistency": None if consistency is None else float(consistency.mean()),
        # The unprojected streams have no common width, so they have no cosine.
        "val_alignment": (
            float(alignment_loss(left, right, body, has_left, has_right)) if is_projected else None
        ),
    }
    for direction, parts in kept.entropy.items():
        clips = sum(count for _, count in parts)
        mean = sum(value * count for value, count in parts) / clips if clips else None
        metrics[f"val_entropy_{direction}"] = mean
    shown = {"left_hand": left[has_left], "right_hand": right[has_right], "body": body}
    for stream, embedding in shown.items():
        enough = len(embedding) > 1
        metrics[f"val_variance_{stream}"] = feature_variance(embedding) if enough else None
        metrics[f"val_rank_{stream}"] = effective_rank(embedding) if enough else None
    return metrics


def _total(metrics: dict[str, Any], loss: CrossModalConsistencyLoss, epoch: int) -> float:
    """The training objective on the validation clips, without label smoothing."""
    factor, total = loss.factor(epoch), metrics["val_classification"]
    total += factor * loss.settings.lambda_consistency * (metrics.get("val_consistency") or 0.0)
    return total + factor * loss.settings.lambda_alignment * (metrics.get("val_alignment") or 0.0)
