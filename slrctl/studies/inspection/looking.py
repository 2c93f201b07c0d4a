"""Look into a trained model while it reads clips."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from slrctl.core.clip import Clip, ClipBatch
from slrctl.core.data.dataset import SignDataset, canonical_dataset
from slrctl.core.data.loader import evaluation_batches, prepare_clips
from slrctl.core.data.prepare import resample_frames
from slrctl.core.model.explanation import Explanation, GatedMessages, StreamMessages, explain
from slrctl.core.model.fusion import CrossModalAttention
from slrctl.engine.loaded_run import LoadedRun
from slrctl.settings import Settings
from slrctl.studies.inspection.record import FUSION, PARTS, AttentionMap, InspectedClip

# The maps of as many clips of 204 frames take half a gigabyte.
LOOKED_AT_TOGETHER = 32
_PART_OF = {"left": "left_hand", "right": "right_hand", "body": "body"}


@torch.no_grad()
def inspect_clips(
    run: LoadedRun,
    dataset: SignDataset,
    settings: Settings,
    device: torch.device,
    layers: Collection[str],
) -> Iterator[InspectedClip]:
    """Yield every clip with the maps of some layers, shortest clips first.

    Args:
        run: the trained model.
        dataset: clips under the model's classes; brought into their canonical form, which is also
            what is drawn, if they are not in it yet.
        settings: how clips are prepared.
        device: where the model is.
        layers: of `layer_names`; the others are left out, to save memory.
    """
    if dataset.canonical is None:
        dataset = canonical_dataset(dataset, settings.prepare)
    clips = {clip.clip_id: clip for clip in dataset}
    for batch in evaluation_batches(prepare_clips(dataset, settings), LOOKED_AT_TOGETHER):
        batch = batch.to(device)
        logits = run.model(batch).logits.cpu().numpy()
        explained = explain(run.model, batch)
        lengths = batch.is_valid.sum(-1).tolist()
        misplaced = _misplaced(explained.fusion, batch)
        for row, (clip_id, length) in enumerate(zip(batch.clip_ids, lengths, strict=True)):
            is_present = {
                "left_hand": _numpy(batch.left_is_present[row, :length]),
                "right_hand": _numpy(batch.right_is_present[row, :length]),
                "body": np.ones(length, bool),
            }
            maps = dict(_layers(explained, row, is_present))
            yield InspectedClip(
                clip=_as_seen(clips[clip_id], settings),
                classes=run.classes,
                logits=logits[row],
                is_present=is_present,
                layers={name: maps[name] for name in maps if name in layers},
                gates=_gates(explained.messages, row, length),
                norms=_norms(explained.messages, row, length),
                misplaced=misplaced[row],
            )


def _as_seen(clip: Clip, settings: Settings) -> Clip:
    """The clip in the frames the model saw, in the coordinates of the image."""
    if clip.num_frames <= settings.model.max_frames:
        return clip
    return replace(clip, landmarks=resample_frames(clip.landmarks, settings.model.max_frames))


def _layers(
    explained: Explanation, row: int, is_present: dict[str, Bool[np.ndarray, " T"]]
) -> Iterator[tuple[str, tuple[AttentionMap, ...]]]:
    """The maps of one clip of the batch, without padding."""
    valid = is_present["body"]
    length = len(valid)
    if explained.fusion is not None:
        yield (
            FUSION,
            tuple(
                _directed(name, _numpy(weights[row, :, :length, :length]), is_present)
                for name, weights in explained.fusion._asdict().items()
            ),
        )
    for number, layer in enumerate(explained.encoders, start=1):
        yield (
            f"encoder-{number}",
            tuple(
                AttentionMap(
                    part, part, part, _numpy(weights[row, :, :length, :length]), valid, valid
                )
                for part, weights in layer.items()
            ),
        )
    for number, weights in enumerate(explained.decoder, start=1):
        one = np.ones(1, bool)
        found = _numpy(weights[row, :, :, :length])
        yield (
            f"decoder-{number}",
            (AttentionMap("class_query", "class_query", "clip", found, one, valid),),
        )


def _directed(
    name: str,
    weights: Float32[np.ndarray, "H T T"],
    is_present: dict[str, Bool[np.ndarray, " T"]],
) -> AttentionMap:
    reader, read = (_PART_OF[short] for short in name.split("_to_"))
    return AttentionMap(name, reader, read, weights, is_present[reader], is_present[read])


def _gates(
    messages: StreamMessages | None, row: int, length: int
) -> dict[str, Float32[np.ndarray, "T D"]] | None:
    if messages is None:
        return None
    return {part: _numpy(stream.gate[row, :length]) for part, stream in messages._asdict().items()}


def _norms(
    messages: StreamMessages | None, row: int, length: int
) -> dict[str, Float32[np.ndarray, "T 3"]] | None:
    """Length of a stream's own features and of its gated messages in every frame."""
    if messages is None:
        return None
    return {
        part: _numpy(_stream_norms(stream, PARTS.index(part), row, length))
        for part, stream in messages._asdict().items()
    }


def _stream_norms(stream: GatedMessages, place: int, row: int, length: int) -> Tensor:
    gate = stream.gate[row, :length]
    norms = [
        (gate * stream.first_message[row, :length]).norm(dim=-1),
        (gate * stream.second_message[row, :length]).norm(dim=-1),
    ]
    norms.insert(place, stream.own[row, :length].norm(dim=-1))
    return torch.stack(norms, dim=-1)


def _misplaced(fusion: CrossModalAttention | None, batch: ClipBatch) -> list[float]:
    """For each clip the largest share of a row that lies on missing or padded frames."""
    if fusion is None:
        return [0.0] * len(batch)
    absent = {
        "left": ~batch.left_is_present,
        "right": ~batch.right_is_present,
        "body": ~batch.is_valid,
    }
    shares = [
        (weights * absent[name.split("_to_")[1]][:, None, None, :]).sum(-1).amax((1, 2))
        for name, weights in fusion._asdict().items()
    ]
    return torch.stack(shares).amax(0).tolist()


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
