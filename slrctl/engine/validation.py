"""What a model does on the validation clips after an epoch: accuracy, loss, diagnostics."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.contributions import aligned_clips, contributing_clips
from slrctl.core.cmcl.diagnostics import effective_rank, entropy_ratio, feature_variance
from slrctl.core.cmcl.loss import CrossModalConsistencyLoss, consistency_term
from slrctl.core.cmcl.projections import stream_means
from slrctl.core.model import SiFormer, Spoter
from slrctl.core.model.fusion import Streams
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.errors import TrainingDiverged

# Clips that the contrastive form tells apart at a time, in order of length.
_CONTRASTED_TOGETHER = 64


class _Pass(NamedTuple):
    """What is kept of the batches, in CPU memory."""

    is_right: list[Tensor]
    negative_log_likelihood: list[Tensor]
    target: list[Tensor]
    embeddings: list[list[Streams]]
    has_left: list[Tensor]
    has_right: list[Tensor]
    consistency: list[tuple[float, int]]
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
    kept = _Pass([], [], [], [], [], [], [], {"left_to_right": [], "right_to_left": []})
    for batch in batches:
        batch = batch.to(device)
        output = model(
            batch,
            return_attention=has_maps,
            return_features=has_maps,
            return_layer_features=has_maps and loss.needs_layer_features,
        )
        _keep_logits(kept, output, batch, epoch)
        if has_maps:
            _keep_maps(kept, output, batch, loss)
    metrics: dict[str, Any] = {
        "val_accuracy": float(torch.cat(kept.is_right).double().mean()),
        "val_classification": float(torch.cat(kept.negative_log_likelihood).double().mean()),
    }
    if has_maps:
        metrics |= _map_metrics(kept, loss)
        _stop_if_not_finite(metrics, epoch)
    metrics["val_loss"] = _total(metrics, loss, epoch)
    return metrics


def _keep_logits(kept: _Pass, output: SiFormerOutput, batch: ClipBatch, epoch: int) -> None:
    if batch.target is None:
        raise ValueError("validation needs targets; collate the clips with their classes")
    kept.target.append(batch.target.cpu())
    kept.is_right.append((output.logits.argmax(-1) == batch.target).cpu())
    surprise = F.cross_entropy(output.logits.float(), batch.target, reduction="none").cpu()
    is_bad = ~torch.isfinite(surprise)
    if is_bad.any():
        bad = [batch.clip_ids[row] for row in is_bad.nonzero().flatten().tolist()]
        raise TrainingDiverged(
            f"epoch {epoch + 1}, validation loss: the classification term is "
            f"{surprise[is_bad][0].item()}, which must be finite; lower --learning-rate, and look "
            f"at the clips: {', '.join(bad)}"
        )
    kept.negative_log_likelihood.append(surprise)


def _stop_if_not_finite(metrics: dict[str, Any], epoch: int) -> None:
    """The terms over maps and streams, of which no single clip is the cause."""
    for term in ("consistency", "alignment"):
        value = metrics[f"val_{term}"]
        if value is not None and not math.isfinite(value):
            raise TrainingDiverged(
                f"epoch {epoch + 1}, validation loss: the {term} term is {value}, which must be "
                "finite; "
                "lower --lambda-consistency, --lambda-alignment or --learning-rate"
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
    scales = (
        [stream_means(features, batch)]
        if loss.projections is None
        else loss.embeddings(output, batch)
    )
    kept.embeddings.append([Streams._make(one.cpu() for one in streams) for streams in scales])
    kept.has_left.append(left.any(-1).cpu())
    kept.has_right.append(right.any(-1).cpu())
    count = contributing_clips(batch, loss.settings).consistency
    if count:
        kept.consistency.append((float(consistency_term(maps, batch, loss.settings)), count))


def _map_metrics(kept: _Pass, loss: CrossModalConsistencyLoss) -> dict[str, Any]:
    has_left, has_right = torch.cat(kept.has_left), torch.cat(kept.has_right)
    scales = [
        Streams._make(torch.cat(parts) for parts in zip(*batches, strict=True))
        for batches in zip(*kept.embeddings, strict=True)
    ]
    left, right, body = scales[0]
    metrics: dict[str, Any] = {
        "val_consistency": _weighted_mean(kept.consistency),
        # The unprojected streams have no common width, so they have no cosine.
        "val_alignment": None if loss.projections is None else _alignment(kept, loss, scales),
    }
    for direction, parts in kept.entropy.items():
        metrics[f"val_entropy_{direction}"] = _weighted_mean(parts)
    shown = {"left_hand": left[has_left], "right_hand": right[has_right], "body": body}
    for stream, embedding in shown.items():
        enough = len(embedding) > 1
        metrics[f"val_variance_{stream}"] = feature_variance(embedding) if enough else None
        metrics[f"val_rank_{stream}"] = effective_rank(embedding) if enough else None
    return metrics


def _weighted_mean(parts: list[tuple[float, int]]) -> float | None:
    clips = sum(count for _, count in parts)
    return sum(value * count for value, count in parts) / clips if clips else None


def _alignment(kept: _Pass, loss: CrossModalConsistencyLoss, scales: list[Streams]) -> float | None:
    """The alignment term, in groups whose size has nothing to do with the batches.

    A clip's cosine does not depend on its group; in the contrastive form a group is what a clip is
    told apart from.
    """
    target = torch.cat(kept.target)
    has_left, has_right = torch.cat(kept.has_left), torch.cat(kept.has_right)
    parts = []
    for start in range(0, len(target), _CONTRASTED_TOGETHER):
        group = slice(start, start + _CONTRASTED_TOGETHER)
        embeddings = [Streams._make(one[group] for one in streams) for streams in scales]
        masks = has_left[group], has_right[group], target[group]
        count = int(aligned_clips(*masks, loss.settings).sum())
        if count:
            parts.append((float(loss.alignment_of(embeddings, *masks)), count))
    return _weighted_mean(parts)


def _total(metrics: dict[str, Any], loss: CrossModalConsistencyLoss, epoch: int) -> float:
    """The training objective on the validation clips, without label smoothing."""
    factor, total = loss.factor(epoch), metrics["val_classification"]
    total += factor * loss.settings.lambda_consistency * (metrics.get("val_consistency") or 0.0)
    return total + factor * loss.settings.lambda_alignment * (metrics.get("val_alignment") or 0.0)
