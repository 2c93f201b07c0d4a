"""The clips a trained model is tried on: a part of its own data, or a file."""

from pathlib import Path
from typing import NamedTuple

from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import SignDataset, load_dataset, rows_where
from slrctl.core.data.splits import load_splits, split_name
from slrctl.errors import DataError, UsageError
from slrctl.runs.folder import read_fingerprints
from slrctl.settings import Settings


class Subject(NamedTuple):
    """The clips a model is tried on, and what to call them."""

    dataset: SignDataset
    name: str
    notes: tuple[str, ...]


def own_clips(
    run_dir: Path,
    own: Settings,
    classes: tuple[str, ...],
    part: str | None = None,
    cache: ClipCache | None = None,
) -> Subject:
    """A part of the data the run was made with, if it is still the same.

    Args:
        run_dir: folder of the run.
        own: the settings of the run.
        classes: the classes of its model.
        part: train, val or test; if absent, test if there is one, else val.
        cache: where clips are kept once they are read.

    Raises:
        UsageError: the data has no such part.
        DataError: the clips are not those the run was made with.
    """
    splits = load_splits(own, cache)
    named = splits.by_name
    name = part or ("test" if "test" in named else "val")
    if name not in named:
        raise UsageError(
            f"--split {name}: the run's data has the splits {', '.join(named)}; name one of them"
        )
    fingerprint = read_fingerprints(run_dir).get(name)
    if splits.train.classes != classes or fingerprint != named[name].fingerprint():
        raise DataError(
            f"{own.data.train or 'demo set'}: the {name} clips are not those the run was made with "
            "(their fingerprint differs); put the file back, or name clips with --data"
        )
    return Subject(named[name], name, splits.notes)


def other_clips(
    settings: Settings,
    classes: tuple[str, ...],
    data: Path,
    split: str | None = None,
    cache: ClipCache | None = None,
) -> Subject:
    """A file, or the rows of it that its split column marks.

    Args:
        settings: how to read the file and prepare its clips.
        classes: the classes of the model.
        data: the file.
        split: which rows; test if absent; all takes every row.
        cache: where clips are kept once they are read.

    Raises:
        UsageError: no row is marked so.
        DataError: the file cannot be read.
    """
    dataset = load_dataset(data, settings.data, classes, prepare=settings.prepare, cache=cache)
    marks = {split_name(clip.split) or clip.split for clip in dataset}
    splits = sorted(mark for mark in marks if mark is not None)
    if split == "all" or (split is None and not splits):
        return Subject(dataset, data.stem, dataset.notes)
    wanted = split or "test"
    if wanted not in splits:
        has = f"has {', '.join(splits)}" if splits else "is empty or absent"
        raise UsageError(
            f"{data}: no row for --split {wanted}, the split column {has}; name another, or all"
        )
    chosen = dataset.select(
        rows_where(dataset, lambda clip: (split_name(clip.split) or clip.split) == wanted)
    )
    note = f"{len(chosen)} of {len(dataset)} clips of {data}: those of split {wanted}"
    return Subject(chosen, f"{data.stem}-{wanted}", (*dataset.notes, note))
