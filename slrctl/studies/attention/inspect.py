"""A run that was opened to be looked into, and the clips it is to read."""

import platform
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from slrctl.core.clip import Clip, ClipBatch
from slrctl.core.data.batches import evaluation_batches, prepare_clips
from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import SignDataset, canonical_dataset
from slrctl.core.data.prepare import canonical_settings, resample_frames
from slrctl.core.data.splits import load_splits
from slrctl.core.devices import deterministic
from slrctl.core.model.explain import Explanation, explain
from slrctl.core.model.fusion import CrossModalAttention, GatedMessages, StreamMessages
from slrctl.errors import DataError, UsageError
from slrctl.evaluation.clips import ClipsToEvaluate, clips_of_file, clips_of_run
from slrctl.layers import Layer
from slrctl.runs.load import LoadedRun, load_with_layers
from slrctl.settings import Settings
from slrctl.studies.attention.faithfulness import Faithfulness, curves_of, judge
from slrctl.studies.attention.measures import units_of
from slrctl.studies.attention.record import FUSION, PARTS, AttentionMap, InspectedClip, layer_names
from slrctl.studies.attention.summary import Summary, summarise

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


_PACKAGES = ("slrctl", "torch", "numpy")


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A trained model with the settings to read clips with; see `RunWithLayers`."""

    run_dir: Path
    run: LoadedRun
    settings: Settings
    device: torch.device

    @property
    def name(self) -> str:
        return self.run_dir.name or str(self.run_dir)

    def subject(
        self, data: Path | None, split: str | None, cache: ClipCache | None
    ) -> ClipsToEvaluate:
        """Its validation clips, another part of its data, or a file."""
        if data is None:
            return clips_of_run(self.run_dir, self.run, split or "val", cache)
        return clips_of_file(data, self.settings, self.run.classes, split or "all", cache)

    def same_clips(
        self,
        other: "OpenedRun",
        subject: ClipsToEvaluate,
        data: Path | None,
        split: str | None,
        cache: ClipCache | None,
    ) -> SignDataset:
        """The clips that were read for another run, in the form that this one takes.

        Args:
            other: the run whose clips they are.
            subject: its clips, read with the next three.
            data: the file, or None for the other run's own.
            split: which part of them.
            cache: where clips are kept once they are read.
        """
        own = self.settings.prepare
        if canonical_settings(own) == canonical_settings(other.settings.prepare):
            return subject.dataset
        if data is not None:
            return self.subject(data, split, cache).dataset
        settings = other.run.settings.model_copy(update={"prepare": own})
        return load_splits(settings, cache).by_name[split or "val"]

    def layer(self, name: str | None) -> str:
        """The layer of this name; fusion if absent, or the last of the decoder without fusion.

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
        """Look at some clips of a data set, and give them back in the order of their ids."""
        wanted = set(clip_ids)
        # Not kept in the cache: it would fill with a file for every few clips looked at.
        some = replace(dataset.part(clip for clip in dataset if clip.clip_id in wanted), cache=None)
        with deterministic():
            found = {
                inspected.clip.clip_id: inspected
                for inspected in inspect_clips(self.run, some, self.settings, self.device, layers)
            }
        return [found[clip_id] for clip_id in clip_ids]

    @property
    def has_fusion(self) -> bool:
        return FUSION in layer_names(self.run.settings.model)

    def summarise(self, dataset: SignDataset) -> Summary:
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
        """Test whether explanations say what the predictions hang on."""
        prepared = prepare_clips(dataset, self.settings)
        batches = (
            batch.to(self.device)
            for batch in evaluation_batches(prepared, self.settings.evaluate.batch_size)
        )
        with deterministic():
            clip_ids, curves = curves_of(self.run.model, batches, self.settings.seed)
        clips = {clip.clip_id: clip for clip in dataset}
        return judge(
            clip_ids,
            curves,
            units_of([clips[clip_id] for clip_id in clip_ids], self.run.classes),
            resamples=self.settings.evaluate.resamples,
            seed=self.settings.seed,
        )

    def source(self) -> dict[str, Any]:
        """Where maps come from, for the files they are saved in."""
        return {
            "run": self.name,
            "settings": self.run.settings.model_dump(mode="json"),
            "versions": {
                "python": platform.python_version(),
                **{package: metadata.version(package) for package in _PACKAGES},
            },
        }


def open_run(run_dir: Path, asked: Sequence[Layer]) -> OpenedRun:
    """Load a run's best model; `asked` are settings laid over those it was trained with."""
    return OpenedRun(**load_with_layers(run_dir, asked)._asdict())


def with_same_classes(second: OpenedRun, first: OpenedRun) -> OpenedRun:
    """The second run, if both can be shown the same clips.

    Raises:
        DataError: they were trained on other glosses.
    """
    if second.run.classes != first.run.classes:
        raise DataError(
            f"{second.run_dir}: its {len(second.run.classes)} glosses are not the "
            f"{len(first.run.classes)} of {first.run_dir}; compare runs trained on the same data"
        )
    return second
