"""What a model does on the validation clips after an epoch: accuracy, loss, diagnostics."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.contributions import aligned_clips, contributing_clips
from slrctl.core.cmcl.diagnostics import effective_rank, entropy_ratio, feature_variance
from slrctl.core.cmcl.loss import CrossModalConsistencyLoss, consistency_term
from slrctl.core.cmcl.projections import stream_means
from slrctl.core.devices import map_on
from slrctl.core.model import SiFormer, Spoter
from slrctl.core.model.fusion import Streams
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.errors import TrainingDiverged
from slrctl.training.processes import ALONE, Workers

# Clips that the contrastive form tells apart at a time, in order of length.
_CONTRASTED_TOGETHER = 64


_Kept = dict[str, Tensor]
"""What is kept of a batch, in CPU memory; a mean over clips as the pair of mean and their number.

The projected streams of scale n are `n.left_hand`, `n.right_hand` and `n.body`.
"""


@torch.no_grad()
def validate(
    model: SiFormer | Spoter,
    loss: CrossModalConsistencyLoss,
    batches: Iterable[ClipBatch],
    device: torch.device,
    epoch: int,
    workers: Workers = ALONE,
) -> dict[str, Any]:
    """Evaluate in fp32 and return the `val_` columns of `metrics.jsonl`.

    Means are over clips, or over those that contribute to the term: the batch size changes
    nothing. Without cross-attention the terms of CMCL are left out. Workers that take turns at the
    batches get the numbers of all of them, to the bit those of one that has them all.

    Raises:
        TrainingDiverged: the model gives a loss that is not finite.
    """
    model.eval()
    has_maps = isinstance(model, SiFormer) and model.fusion is not None

    @torch.no_grad()
    def work(batch: ClipBatch) -> _Kept:
        batch = batch.to(device)
        output = model(
            batch,
            return_hand_attention=has_maps,
            return_features=has_maps,
            return_layer_features=has_maps and loss.needs_layer_features,
        )
        kept = _of_logits(output, batch)
        return kept | _of_maps(output, batch, loss) if has_maps else kept

    kept = workers.exchange(list(map_on(device, work, batches)))
    _stop_at_bad_clips(kept, epoch)
    is_right = _joined(kept, "is_right").double()
    accuracy = float(is_right.mean())
    metrics: dict[str, Any] = {
        "val_accuracy": accuracy,
        "val_accuracy_error": math.sqrt(accuracy * (1 - accuracy) / len(is_right)),
        "val_classification": float(_joined(kept, "surprise").double().mean()),
    }
    if has_maps:
        metrics |= _map_metrics(kept, loss, epoch)
    metrics["val_loss"] = _total(metrics, loss, epoch)
    return metrics


def _of_logits(output: SiFormerOutput, batch: ClipBatch) -> _Kept:
    if batch.target is None:
        raise ValueError("validation needs targets; collate the clips with their classes")
    surprise = F.cross_entropy(output.logits.float(), batch.target, reduction="none").cpu()
    kept = {
        "target": batch.target.cpu(),
        "is_right": (output.logits.argmax(-1) == batch.target).cpu(),
        "surprise": surprise,
    }
    bad = (~torch.isfinite(surprise)).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(batch.clip_ids[row] for row in bad)
        kept["bad_clips"] = torch.tensor(
            list(names.encode("utf-8", "surrogatepass")), dtype=torch.uint8
        )
    return kept


def _stop_at_bad_clips(kept: list[_Kept], epoch: int) -> None:
    """Name the clips of the first batch that has a loss that is not finite."""
    for part in kept:
        if "bad_clips" in part:
            surprise = part["surprise"]
            names = bytes(part["bad_clips"].tolist()).decode("utf-8", "surrogatepass")
            raise TrainingDiverged(
                f"epoch {epoch + 1}, validation loss: the classification term is "
                f"{surprise[~torch.isfinite(surprise)][0].item()}, which must be finite; lower "
                f"--learning-rate, and look at the clips: {names}"
            )


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


def _of_maps(output: SiFormerOutput, batch: ClipBatch, loss: CrossModalConsistencyLoss) -> _Kept:
    maps, features = output.hand_attention, output.features
    if maps is None or features is None:
        raise ValueError("the model gave no maps; it has no cross-attention")
    left, right = batch.left_is_present, batch.right_is_present
    scales = (
        [stream_means(features, batch)]
        if loss.projections is None
        else loss.embeddings(output, batch)
    )
    count = contributing_clips(batch, loss.settings).consistency
    term = float(consistency_term(maps, batch, loss.settings)) if count else 0.0
    pairs = {
        "consistency": (term, count),
        "entropy_left_to_right": entropy_ratio(maps.left_to_right, left, right),
        "entropy_right_to_left": entropy_ratio(maps.right_to_left, right, left),
    }
    return {
        "has_left": left.any(-1).cpu(),
        "has_right": right.any(-1).cpu(),
        **{name: torch.tensor(pair, dtype=torch.float64) for name, pair in pairs.items()},
        **{
            f"{number}.{name}": stream.cpu()
            for number, streams in enumerate(scales)
            for name, stream in zip(Streams._fields, streams, strict=True)
        },
    }


def _joined(kept: list[_Kept], name: str) -> Tensor:
    return torch.cat([part[name] for part in kept])


def _map_metrics(kept: list[_Kept], loss: CrossModalConsistencyLoss, epoch: int) -> dict[str, Any]:
    has_left, has_right = _joined(kept, "has_left"), _joined(kept, "has_right")
    num_scales = sum(name.endswith(".body") for name in kept[0])
    scales = [
        Streams._make(_joined(kept, f"{number}.{name}") for name in Streams._fields)
        for number in range(num_scales)
    ]
    left, right, body = scales[0]
    metrics: dict[str, Any] = {
        "val_consistency": _mean_of(kept, "consistency"),
        # The unprojected streams have no common width, so they have no cosine.
        "val_alignment": None if loss.projections is None else _alignment(kept, loss, scales),
    }
    _stop_if_not_finite(metrics, epoch)
    for direction in ("left_to_right", "right_to_left"):
        metrics[f"val_entropy_{direction}"] = _mean_of(kept, f"entropy_{direction}")
    shown = {"left_hand": left[has_left], "right_hand": right[has_right], "body": body}
    for stream, embedding in shown.items():
        metrics[f"val_variance_{stream}"] = feature_variance(embedding)
        metrics[f"val_rank_{stream}"] = effective_rank(embedding)
    return metrics


def _mean_of(kept: list[_Kept], name: str) -> float | None:
    return _weighted_mean([tuple(part[name].tolist()) for part in kept])


def _weighted_mean(parts: list[tuple[float, float]]) -> float | None:
    clips = sum(count for _, count in parts)
    return sum(value * count for value, count in parts) / clips if clips else None


def _alignment(
    kept: list[_Kept], loss: CrossModalConsistencyLoss, scales: list[Streams]
) -> float | None:
    """The alignment term, in groups whose size has nothing to do with the batches.

    A clip's cosine does not depend on its group; in the contrastive form a group is what a clip is
    told apart from.
    """
    target = _joined(kept, "target")
    has_left, has_right = _joined(kept, "has_left"), _joined(kept, "has_right")
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
