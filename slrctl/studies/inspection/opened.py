"""A run that was opened to be looked into, and the clips it is to read."""

import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from slrctl.core.data.cache import ClipCache
from slrctl.core.data.canonical import canonical_settings
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.loader import evaluation_batches, prepare_clips
from slrctl.core.data.parts import load_parts, named_parts
from slrctl.engine.loaded_run import LoadedRun, load_asked
from slrctl.engine.runtime import deterministic
from slrctl.engine.subject import Subject, other_clips, own_clips
from slrctl.errors import DataError, UsageError
from slrctl.layers import Layer
from slrctl.settings import Settings
from slrctl.studies.inspection.faithfulness import Faithfulness, curves_of, judge
from slrctl.studies.inspection.intervals import units_of
from slrctl.studies.inspection.looking import inspect_clips
from slrctl.studies.inspection.record import FUSION, InspectedClip, layer_names
from slrctl.studies.inspection.summary import Summary, summarise

_PACKAGES = ("slrctl", "torch", "numpy")


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A trained model with the settings to read clips with; see `AskedRun`."""

    run_dir: Path
    run: LoadedRun
    own: Settings
    settings: Settings
    device: torch.device

    @property
    def name(self) -> str:
        return self.run_dir.name or str(self.run_dir)

    def subject(self, data: Path | None, split: str | None, cache: ClipCache | None) -> Subject:
        """Its validation clips, another part of its data, or a file."""
        if data is None:
            return own_clips(self.run_dir, self.own, self.run.classes, split or "val", cache)
        return other_clips(self.settings, self.run.classes, data, split or "all", cache)

    def same_clips(
        self,
        other: "OpenedRun",
        subject: Subject,
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
        settings = other.own.model_copy(update={"prepare": own})
        return named_parts(load_parts(settings, cache))[split or "val"]

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
    """Load a run's best model; `asked` are settings laid over those it was trained with.

    Raises:
        DataError: its settings file does not belong to its checkpoint.
    """
    return OpenedRun(**load_asked(run_dir, asked)._asdict())


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
