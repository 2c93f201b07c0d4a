"""Clips to evaluate: a split of the run's data, or another file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.splits import load_splits
from slrctl.core.data.splitter import split_name
from slrctl.errors import DataError, UsageError
from slrctl.runs.checkpoint import LoadedRun
from slrctl.runs.folder import read_fingerprints
from slrctl.settings import Settings


class ClipsToEvaluate(NamedTuple):
    """Clips, a name for them that is fit for a file, and remarks for the user."""

    dataset: SignDataset
    name: str
    notes: tuple[str, ...]


def clips_of_run(
    run_dir: Path, run: LoadedRun, split: str | None = None, cache: ClipCache | None = None
) -> ClipsToEvaluate:
    """Load a split of the data the run was made with; if absent, test if there is one, else val.

    Raises:
        UsageError: the data has no such split.
        DataError: the clips have changed since the run was made.
    """
    splits = load_splits(run.settings, cache)
    by_name = splits.by_name
    name = split or ("test" if "test" in by_name else "val")
    if name not in by_name:
        raise UsageError(
            f"--split {name}: the run's data has the splits {', '.join(by_name)}; name one of them"
        )
    is_same = read_fingerprints(run_dir).get(name) == by_name[name].fingerprint()
    if not is_same or splits.train.classes != run.classes:
        raise DataError(
            f"{run.settings.data.train or 'demo set'}: the {name} clips are not those the run was "
            "made with (their fingerprint differs); put the file back, or name clips with --data"
        )
    return ClipsToEvaluate(by_name[name], name, splits.notes)


def clips_of_file(
    path: Path,
    settings: Settings,
    classes: tuple[str, ...],
    split: str | None = None,
    cache: ClipCache | None = None,
) -> ClipsToEvaluate:
    """Load the rows of a file that have a value in the split column.

    Without a split, those of test, or every row if the column is empty; `all` takes every row.

    Raises:
        UsageError: no row has this split.
        DataError: the file cannot be read.
    """
    dataset = load_dataset(path, settings.data, classes, prepare=settings.prepare, cache=cache)
    splits = [split_name(clip.split) or clip.split for clip in dataset]
    found = sorted({name for name in splits if name is not None})
    if split == "all" or (split is None and not found):
        return ClipsToEvaluate(dataset, path.stem, dataset.notes)
    wanted = split or "test"
    if wanted not in found:
        has = f"has {', '.join(found)}" if found else "is empty or absent"
        raise UsageError(
            f"{path}: no row for --split {wanted}, the split column {has}; name another, or all"
        )
    chosen = dataset.select(np.flatnonzero([name == wanted for name in splits]))
    note = f"{len(chosen)} of {len(dataset)} clips of {path}: those of split {wanted}"
    return ClipsToEvaluate(chosen, f"{path.stem}-{wanted}", (*dataset.notes, note))
