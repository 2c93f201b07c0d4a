"""The clips a training needs, from what the settings name: training, validation, test."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.cache.clip_cache import ClipCache
from slrctl.core.data.dataset import SignDataset, canonical_dataset, load_dataset
from slrctl.core.data.formats.reading import count_of
from slrctl.core.data.mirrored_copies import with_mirrored_copies
from slrctl.core.data.splits import Parts, choose_parts
from slrctl.core.data.synthetic import synthesise
from slrctl.core.skeleton import LEFT_HAND, RIGHT_HAND
from slrctl.errors import DataError, UsageError
from slrctl.settings import Settings


def load_parts(settings: Settings, cache: ClipCache | None = None) -> Parts:
    """Read what `data.train`, `data.val` and `data.test` name; the demo set if nothing is named.

    Args:
        settings: `data` names the files, `prepare` the form their clips are brought into.
        cache: where clips are kept once they are read; without it they are held in memory.

    Raises:
        UsageError: clips are named for validation or test, but none for training.
        DataError: a file cannot be read, or the parts do not fit together.
    """
    data = settings.data
    if data.train is None:
        for name, path in (("val", data.val), ("test", data.test)):
            if path is not None:
                raise UsageError(
                    f"--{name} {path}: given without training clips; name those with --train"
                )
        train, val, test = canonical_dataset(synthesise().dataset, settings.prepare), None, None
    else:
        train = load_dataset(data.train, data, prepare=settings.prepare, cache=cache)
        # What cannot be kept of the first file is not tried again: one warning is enough.
        val, test = (
            None
            if path is None
            else load_dataset(
                path, data, train.classes, prepare=settings.prepare, cache=train.cache
            )
            for path in (data.val, data.test)
        )
    parts = choose_parts(
        train,
        val,
        test,
        val_share=data.val_share,
        seed=settings.seed,
        skip_bad_clips=data.skip_bad_clips,
        people=data,
    )
    if data.val_mirrored:
        note = f"validation: {count_of(len(parts.val), 'clip')}, each beside its mirrored copy"
        mirrored = with_mirrored_copies(parts.val)
        parts = replace(parts, val=mirrored, notes=(*parts.notes, note))
    if len(set(parts.train.classes)) < 2:
        raise DataError(
            f"{train.name}: all training clips show {''.join(parts.train.classes)!r}; "
            "recognition needs clips of at least two glosses"
        )
    read = [
        f"{dataset.name}: {note}"
        for dataset in (train, val, test)
        if dataset is not None
        for note in dataset.notes
    ]
    return replace(parts, notes=(*read, *parts.notes))


def named_parts(parts: Parts) -> dict[str, SignDataset]:
    """The parts there are, by name."""
    named = {"train": parts.train, "val": parts.val, "test": parts.test}
    return {name: part for name, part in named.items() if part is not None}


def missing_hand_share(clips: Sequence[Clip]) -> tuple[float, float]:
    """Share of frames without the left hand, and without the right one."""
    missing = np.zeros(2)
    num_frames = 0
    for clip in clips:
        num_frames += clip.num_frames
        is_missing = np.isnan(clip.landmarks[..., 0]) | np.isnan(clip.landmarks[..., 1])
        missing += [is_missing[:, hand].all(axis=1).sum() for hand in (LEFT_HAND, RIGHT_HAND)]
    left, right = missing / num_frames
    return float(left), float(right)
