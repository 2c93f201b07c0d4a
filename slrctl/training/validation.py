"""The validation after an epoch: accuracy, the terms of the loss, diagnostics of CMCL."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import ClipFacts, aligned_per_clip, is_aligned, stream_means
from slrctl.core.cmcl.diagnostics import effective_rank, entropy_ratio, feature_variance
from slrctl.core.cmcl.loss import CrossModalConsistencyLoss, surprise
from slrctl.core.devices import map_on
from slrctl.core.model.build import Model
from slrctl.core.model.fusion import Streams
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.errors import TrainingDiverged
from slrctl.settings import CMCL_TERMS
from slrctl.training.processes import SINGLE, ProcessGroup

# Clips that the contrastive form compares at a time, in order of length.
_CONTRASTED_TOGETHER = 64

_PerClip = dict[str, Tensor]
"""Named results, each with one row a clip, in CPU memory."""


@torch.no_grad()
def validate(
    model: Model,
    loss: CrossModalConsistencyLoss,
    batches: Iterable[ClipBatch],
    device: torch.device,
    epoch: int,
    group: ProcessGroup = SINGLE,
) -> dict[str, Any]:
    """Evaluate in fp32 and return the `val_` columns of `metrics.jsonl`.

    Means are over clips, or over those that contribute to the term: the batch size changes
    nothing. Without cross-attention the terms of CMCL are left out. Processes to which the batches
    are dealt out in turn get the numbers of all, to the bit those of one that has them all.

    Raises:
        TrainingDiverged: the model gives a loss that is not finite.
    """
    model.eval()
    has_maps = model.fusion is not None

    @torch.no_grad()
    def compute(batch: ClipBatch) -> tuple[_PerClip, tuple[str, ...]]:
        batch = batch.to(device)
        target = ClipFacts.of(batch).target
        output = model(
            batch,
            return_hand_attention=has_maps,
            return_features=has_maps,
            return_layer_features=has_maps and loss.needs_layer_features,
        )
        results = {
            "target": target,
            "is_correct": output.logits.argmax(-1) == target,
            "surprise": surprise(output.logits, target),
        }
        if has_maps:
            results |= _of_streams(output, batch, loss)
        return {name: rows.cpu() for name, rows in results.items()}, batch.clip_ids

    results = group.gather_in_turn(list(map_on(device, compute, batches)))
    clips = {name: torch.cat([rows[name] for rows, _ in results]) for name in results[0][0]}
    _stop_if_not_finite(clips["surprise"], [name for _, ids in results for name in ids], epoch)
    accuracy = float(clips["is_correct"].double().mean())
    metrics: dict[str, Any] = {
        "val_accuracy": accuracy,
        "val_accuracy_error": math.sqrt(accuracy * (1 - accuracy) / len(clips["target"])),
        "val_classification": float(clips["surprise"].double().mean()),
    }
    if has_maps:
        metrics |= _map_metrics(clips, loss, epoch)
    # The training objective on the validation clips, without label smoothing.
    lambdas = loss.lambdas(epoch)
    weighted = [lambdas[name] * (metrics.get(f"val_{name}") or 0.0) for name in lambdas]
    return {**metrics, "val_loss": sum(weighted)}


def _terms_per_clip(loss: CrossModalConsistencyLoss) -> list[str]:
    """Name the terms that are measured clip by clip: consistency, and others that are trained."""
    trained = [name for name in CMCL_TERMS if name in loss.trained_terms]
    is_compared = "alignment" if loss.is_contrastive else None
    return [name for name in dict.fromkeys(["consistency", *trained]) if name != is_compared]


def _of_streams(
    output: SiFormerOutput, batch: ClipBatch, loss: CrossModalConsistencyLoss
) -> _PerClip:
    """Return terms of CMCL, the entropy of both maps, and the embeddings of the streams."""
    maps, features = output.hand_attention, output.features
    if maps is None or features is None:
        raise ValueError("the model gave no maps; it has no cross-attention")
    left, right = batch.left_is_present, batch.right_is_present
    results = {"has_left": left.any(-1), "has_right": right.any(-1)}
    for name in _terms_per_clip(loss):  # B M, for a term may be a sum of means
        results[name] = torch.stack(loss.per_clip(name, output, batch), dim=-1)
        results[f"contributes.{name}"] = torch.stack(loss.contributing(name, batch), dim=-1)
    for name, ratio, contributes in (
        ("entropy_left_to_right", *entropy_ratio(maps.left_to_right, left, right)),
        ("entropy_right_to_left", *entropy_ratio(maps.right_to_left, right, left)),
    ):
        results[name], results[f"contributes.{name}"] = ratio[:, None], contributes[:, None]
    embeddings = stream_means(features, batch)
    if loss.projections is not None:
        scales = loss.embeddings(output, batch)
        results["scales"] = scales.movedim(2, 0)  # B S 3 D
        embeddings = scales[0]
    return results | dict(zip(Streams._fields, embeddings, strict=True))


def _map_metrics(
    clips: _PerClip, loss: CrossModalConsistencyLoss, epoch: int
) -> dict[str, float | None]:
    terms = {name: _mean(clips, name) for name in _terms_per_clip(loss)}
    if loss.is_contrastive:
        terms["alignment"] = _contrastive_mean(clips, loss)
    for name, value in terms.items():
        if value is not None and not math.isfinite(value):
            raise TrainingDiverged(
                f"epoch {epoch + 1}, validation loss: the {name} term is {value}, which must be "
                "finite; lower --lambda-consistency, --lambda-alignment or --learning-rate"
            )
    # The unprojected streams have no common width, so they have no cosine.
    metrics = {f"val_{name}": terms.get(name) for name in CMCL_TERMS}
    for name in ("entropy_left_to_right", "entropy_right_to_left"):
        metrics[f"val_{name}"] = _mean(clips, name)
    has_left, has_right = clips["has_left"], clips["has_right"]
    left, right = clips["left_hand"][has_left], clips["right_hand"][has_right]
    for stream, embedding in zip(Streams._fields, (left, right, clips["body"]), strict=True):
        metrics[f"val_variance_{stream}"] = feature_variance(embedding)
        metrics[f"val_rank_{stream}"] = effective_rank(embedding)
    return metrics


def _mean(clips: _PerClip, name: str) -> float | None:
    """Return the sum of the means over contributing clips; None without any."""
    contributes = clips[f"contributes.{name}"]
    if not contributes.any():
        return None
    sums, counts = clips[name].double().sum(0), contributes.sum(0)
    return float((sums / counts.clamp(min=1)).sum())


def _contrastive_mean(clips: _PerClip, loss: CrossModalConsistencyLoss) -> float | None:
    """Compare clips in groups whose size does not depend on the batches."""
    values, contributes = [], []
    for start in range(0, len(clips["target"]), _CONTRASTED_TOGETHER):
        group = slice(start, start + _CONTRASTED_TOGETHER)
        facts = ClipFacts(*(clips[name][group] for name in ClipFacts._fields))
        scales = clips["scales"][group].movedim(0, 2)
        values.append(aligned_per_clip(scales, facts, loss.settings))
        contributes.append(is_aligned(facts, loss.settings))
    count = torch.cat(contributes).sum()
    return float(torch.cat(values).double().sum() / count) if count else None


def _stop_if_not_finite(surprise: Tensor, clip_ids: list[str], epoch: int) -> None:
    is_bad = ~torch.isfinite(surprise)
    if is_bad.any():
        names = [clip_id for clip_id, bad in zip(clip_ids, is_bad.tolist(), strict=True) if bad]
        raise TrainingDiverged(
            f"epoch {epoch + 1}, validation loss: the classification term is "
            f"{surprise[is_bad][0].item()}, which must be finite; lower --learning-rate, and look "
            f"at the clips: {', '.join(names)}"
        )
