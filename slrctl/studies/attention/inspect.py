"""The attention of a run's model on clips: maps of single clips, summary, faithfulness."""

import platform
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from slrctl.core.clip import Clip, ClipBatch
from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.cache import open_cache
from slrctl.core.data.dataset import SignDataset, canonical_dataset
from slrctl.core.data.prepare import even_positions, interpolate_frames, resample_frames
from slrctl.core.data.splits import load_splits
from slrctl.core.devices import deterministic
from slrctl.core.model.explain import Explanation, explain
from slrctl.core.model.fusion import CrossModalAttention, StreamMessages
from slrctl.errors import DataError, UsageError
from slrctl.evaluation.clips import ClipsToEvaluate, clips_of_file, clips_of_run
from slrctl.layers import Layer
from slrctl.runs.checkpoint import LoadedRun, RunWithLayers, load_with_layers
from slrctl.settings import Settings
from slrctl.studies.attention.faithfulness import Faithfulness, curves_of, judge
from slrctl.studies.attention.record import (
    FUSION,
    STREAM_OF,
    AttentionMap,
    InspectedClip,
    layer_names,
)
from slrctl.studies.attention.summary import AttentionSummary, Bootstrap, summarise

BATCH_SIZE = 32
"""Clips inspected at once: at 204 frames their maps take half a gigabyte."""


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
        dataset: clips under the model's classes.
        settings: of their preparation.
        device: of the model.
        layers: of `layer_names`; the others are left out, to save memory.
    """
    if dataset.canonical is None:
        dataset = canonical_dataset(dataset, settings.prepare)
    clips = {clip.clip_id: clip for clip in dataset}
    for batch in evaluation_batches(dataset, settings, batch_size=BATCH_SIZE):
        batch = batch.to(device)
        logits = _numpy(run.model(batch).logits)
        explained = explain(run.model, batch)
        misplaced = _misplaced(explained.fusion, batch)
        lengths = batch.is_valid.sum(-1).tolist()
        for row, (clip_id, length) in enumerate(zip(batch.clip_ids, lengths, strict=True)):
            is_present = {
                "left_hand": _numpy(batch.left_is_present[row, :length]),
                "right_hand": _numpy(batch.right_is_present[row, :length]),
                "body": np.ones(length, bool),
            }
            maps = _maps(explained, row, is_present)
            messages = explained.messages
            yield InspectedClip(
                clip=_as_seen(clips[clip_id], settings),
                classes=run.classes,
                logits=logits[row],
                is_present=is_present,
                layers={name: found for name, found in maps.items() if name in layers},
                gates=messages
                and {name: _numpy(m.gate[row, :length]) for name, m in messages._asdict().items()},
                norms=messages and _norms(messages, row, length),
                misplaced=misplaced[row],
            )


def _as_seen(clip: Clip, settings: Settings) -> Clip:
    """Resample a clip to the frames that the model sees."""
    if num_frames := settings.prepare.num_frames:
        frames, length = torch.tensor(clip.landmarks)[None], torch.tensor([clip.num_frames])
        seen = interpolate_frames(frames, length, even_positions(1, num_frames))
        return replace(clip, landmarks=seen[0].numpy())
    if clip.num_frames <= settings.model.max_frames:
        return clip
    return replace(clip, landmarks=resample_frames(clip.landmarks, settings.model.max_frames))


def _maps(
    explained: Explanation, row: int, is_present: dict[str, Bool[np.ndarray, " T"]]
) -> dict[str, tuple[AttentionMap, ...]]:
    """Return the maps of one clip of a batch by layer, without padding."""
    valid, layers = is_present["body"], {}

    def unpadded(weights: Tensor) -> Float32[np.ndarray, "H Q T"]:
        return _numpy(weights[row, :, : len(valid), : len(valid)])

    if explained.fusion is not None:
        directed = []
        for name, weights in explained.fusion._asdict().items():
            reader, read = (STREAM_OF[short] for short in name.split("_to_"))
            masks = is_present[reader], is_present[read]
            directed.append(AttentionMap(name, reader, read, unpadded(weights), *masks))
        layers[FUSION] = tuple(directed)
    for number, layer in enumerate(explained.encoders, start=1):
        layers[f"encoder-{number}"] = tuple(
            AttentionMap(stream, stream, stream, unpadded(weights), valid, valid)
            for stream, weights in layer.items()
        )
    query, one = "class_query", np.ones(1, bool)
    for number, weights in enumerate(explained.decoder, start=1):
        found = AttentionMap(query, query, "clip", unpadded(weights), one, valid)
        layers[f"decoder-{number}"] = (found,)
    return layers


def _norms(
    messages: StreamMessages, row: int, length: int
) -> dict[str, Float32[np.ndarray, "T 3"]]:
    """Return the norms of a stream's own features and of its gated messages in every frame."""
    found = {}
    for place, (stream, message) in enumerate(messages._asdict().items()):
        own, gate, first, second = (tensor[row, :length] for tensor in message)
        columns = [(gate * first).norm(dim=-1), (gate * second).norm(dim=-1)]
        columns.insert(place, own.norm(dim=-1))
        found[stream] = _numpy(torch.stack(columns, dim=-1))
    return found


def _misplaced(fusion: CrossModalAttention | None, batch: ClipBatch) -> list[float]:
    """Return for each clip the largest share of a row that lies on missing or padded frames."""
    if fusion is None:
        return [0.0] * len(batch)
    is_absent = {
        "left": ~batch.left_is_present,
        "right": ~batch.right_is_present,
        "body": ~batch.is_valid,
    }
    shares = [
        (weights * is_absent[name.split("_to_")[1]][:, None, None, :]).sum(-1).amax((1, 2))
        for name, weights in fusion._asdict().items()
    ]
    return torch.stack(shares).amax(0).tolist()


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()


class OpenedRun(RunWithLayers):
    """A run whose model is to be inspected."""

    @property
    def name(self) -> str:
        return self.run_dir.name or str(self.run_dir)

    @property
    def has_fusion(self) -> bool:
        return FUSION in layer_names(self.run.settings.model)

    def layer(self, name: str | None) -> str:
        """Return the layer of this name; fusion if absent, or the last of the decoder without.

        Raises:
            UsageError: the model has no such layer.
        """
        names = layer_names(self.run.settings.model)
        if name is None:
            return names[0]
        if name not in names:
            why = ", for its streams do not read one another" if name == FUSION else ""
            raise UsageError(
                f"--layer {name}: {self.run_dir} has no such layer{why}; it has {', '.join(names)}"
            )
        return name

    def inspect(
        self, dataset: SignDataset, clip_ids: Sequence[str], layers: Collection[str]
    ) -> list[InspectedClip]:
        """Inspect some clips of a data set, in the order of their ids."""
        wanted = set(clip_ids)
        # Not kept in the cache, which would get a file for every few clips inspected.
        some = replace(
            dataset.with_clips(clip for clip in dataset if clip.clip_id in wanted), cache=None
        )
        with deterministic():
            inspected = inspect_clips(self.run, some, self.settings, self.device, layers)
            found = {one.clip.clip_id: one for one in inspected}
        return [found[clip_id] for clip_id in clip_ids]

    def summarise(self, dataset: SignDataset) -> AttentionSummary:
        """Summarise attention between the hands over all clips."""
        with deterministic():
            found = inspect_clips(self.run, dataset, self.settings, self.device, {FUSION})
            return summarise(
                found,
                self.run.settings.cmcl,
                resamples=self.settings.evaluate.resamples,
                seed=self.settings.seed,
            )

    def judge(self, dataset: SignDataset) -> Faithfulness:
        """Test whether explanations name the frames that predictions depend on."""
        batches = evaluation_batches(dataset, self.settings)
        with deterministic():
            on_device = (batch.to(self.device) for batch in batches)
            clip_ids, curves = curves_of(self.run.model, on_device, self.settings.seed)
        clips = {clip.clip_id: clip for clip in dataset}
        bootstrap = Bootstrap.of_clips(
            [clips[clip_id] for clip_id in clip_ids],
            resamples=self.settings.evaluate.resamples,
            seed=self.settings.seed,
        )
        return judge(clip_ids, curves, bootstrap)

    def source(self) -> dict[str, Any]:
        """Return the origin of the maps, for the files they are saved in."""
        packages = {package: metadata.version(package) for package in ("slrctl", "torch", "numpy")}
        return {
            "run": self.name,
            "settings": self.run.settings.model_dump(mode="json"),
            "versions": {"python": platform.python_version(), **packages},
        }


def open_run(run_dir: Path, asked: Sequence[Layer], beside: OpenedRun | None = None) -> OpenedRun:
    """Load a run's best model, with settings laid over those it was trained with.

    Raises:
        DataError: it was trained on other glosses than the run that it is compared with.
    """
    opened = OpenedRun(*load_with_layers(run_dir, asked))
    if beside is not None and opened.run.classes != beside.run.classes:
        raise DataError(
            f"{opened.run_dir}: its {len(opened.run.classes)} glosses are not the "
            f"{len(beside.run.classes)} of {beside.run_dir}; compare runs trained on the same data"
        )
    return opened


def load_clips(
    runs: Sequence[OpenedRun], data: Path | None, split: str | None
) -> tuple[ClipsToEvaluate, list[SignDataset]]:
    """Load clips of a file, or of the first run's data, in the form that each run takes.

    Returns:
        The clips of the first run with their name and remarks, and the clips of every run.
    """
    cache = open_cache(runs[0].settings.data)
    if data is not None:
        found = [
            clips_of_file(data, run.settings, run.run.classes, split or "all", cache)
            for run in runs
        ]
        return found[0], [clips.dataset for clips in found]
    (run_dir, first, *_), *others = runs
    split = split or "val"
    clips = clips_of_run(run_dir, first, split, cache)
    layers = [{"prepare": other.settings.prepare} for other in others]
    of_others = [load_splits(first.settings.model_copy(update=layer), cache) for layer in layers]
    return clips, [clips.dataset, *(splits.by_name[split] for splits in of_others)]
