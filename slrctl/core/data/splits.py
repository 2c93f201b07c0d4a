"""Decide which clips train, validate and test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import (
    SignDataset,
    ordered_classes,
    rows_where,
    with_known_glosses,
)
from slrctl.core.data.formats.reading import count_of, quote, some_of
from slrctl.core.data.holdout import choose_stratified, choose_whole_groups
from slrctl.core.data.people import are_chosen, rows_by_signer
from slrctl.errors import DataError
from slrctl.settings import DataSettings

_PART_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
_LONG_NAME = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Parts:
    """The clips of a training, under one tuple of classes: those that training shows.

    `notes` say in one line each how the parts came about.
    """

    train: SignDataset
    val: SignDataset
    test: SignDataset | None
    notes: tuple[str, ...] = ()


def part_of(split: str | None) -> str | None:
    """train, val or test, however a file spells it; None for anything else."""
    return None if split is None else _PART_OF.get(split.strip().lower())


def choose_parts(
    train: SignDataset,
    val: SignDataset | None,
    test: SignDataset | None,
    *,
    val_share: float,
    seed: int,
    skip_bad_clips: bool = False,
    people: DataSettings | None = None,
) -> Parts:
    """Take the parts from the files given, else from a split column, else split one off.

    Args:
        train: clips of the training file; a split column there says what each row is for.
        val: clips to validate on, if a file was named for them.
        test: clips to test on, if a file was named for them.
        val_share: share of the training clips split off where there is nothing to validate on.
        seed: decides which clips those are.
        skip_bad_clips: leave out clips with a gloss that training lacks, instead of stopping.
        people: settings that may name signers for the parts; they take the split column's place.

    Raises:
        UsageError: the people named do not make parts.
        DataError: the split column is incomplete or leaves nothing to train on, a part shows a
            gloss that training lacks, or there are too few clips to split some off.
    """
    if people is not None and are_chosen(people):
        rows, note = rows_by_signer(train, people)
        notes = [note]
    else:
        rows, notes = _rows_of_training_file(train)
    others = replace(train, notes=())
    kept = train.select(rows["train"])
    validation = others.select(rows["val"])
    testing = others.select(rows["test"]) if len(rows["test"]) else None
    if val is not None:
        validation, note = _rows_of_given_file(val, "val", len(rows["val"]))
        notes.append(note)
    elif not len(rows["val"]):
        is_chosen, note = _split_off(kept, val_share, seed)
        validation = replace(kept.select(np.flatnonzero(is_chosen)), notes=())
        kept = kept.select(np.flatnonzero(~is_chosen))
        notes.append(note)
    if test is not None:
        testing, note = _rows_of_given_file(test, "test", len(rows["test"]))
        notes.append(note)

    training = replace(kept, classes=ordered_classes(clip.gloss for clip in kept))
    validation, remarks = _beside(training, validation, "val", skip_bad_clips)
    notes += remarks
    if testing is not None:
        testing, remarks = _beside(training, testing, "test", skip_bad_clips)
        notes += remarks
    return Parts(training, validation, testing, tuple(notes))


_Rows = Int64[np.ndarray, " M"]


def _rows_of_training_file(train: SignDataset) -> tuple[dict[str, _Rows], list[str]]:
    """The rows of the training file by what its split column says; all train if it has none."""
    if all(clip.split is None for clip in train):
        nothing = np.zeros(0, dtype=np.int64)
        return {"train": np.arange(len(train)), "val": nothing, "test": nothing}, []
    parts: list[str] = []
    for row, clip in enumerate(train):
        part = part_of(clip.split)
        if part is None:
            found = "null, while other rows have one" if clip.split is None else quote(clip.split)
            raise DataError(
                f"{train.source}: row {row + 1} (clip {quote(clip.clip_id)}), column 'split': "
                f"found {found}; expected train, val or test in every row, or null in all of them"
            )
        parts.append(part)
    rows = {name: np.flatnonzero([part == name for part in parts]) for name in _LONG_NAME}
    counts = ", ".join(f"{len(found)} {name}" for name, found in rows.items() if len(found))
    if not len(rows["train"]):
        raise DataError(
            f"{train.source}: column 'split': found {counts} and no row for training; "
            "mark some rows as train, or name another file with --train"
        )
    return rows, [f"split column of {train.name}: {counts}"]


def _rows_of_given_file(given: SignDataset, part: str, overridden: int) -> tuple[SignDataset, str]:
    """The clips of a file named for a part: the rows marked for it if there are any, else all."""
    marked = rows_where(given, lambda clip: part_of(clip.split) == part)
    name = _LONG_NAME[part]
    clips = count_of(len(marked) or len(given), "clip")
    if 0 < len(marked) < len(given):
        note = f"{name}: {clips} of {given.name}, the rows its split column marks {part}"
    else:
        note = f"{name}: all {clips} of {given.name}"
    if overridden:
        note += f", instead of the {count_of(overridden, 'row')} the training file marks {part}"
    return (given.select(marked) if len(marked) else given), note


def _split_off(train: SignDataset, share: float, seed: int) -> tuple[Bool[np.ndarray, " N"], str]:
    """Which training clips are to validate instead, and how they were chosen."""
    for noun, group_of in (("signer", _signer), ("session", _session)):
        groups = choose_whole_groups(train, group_of, share, seed)
        if groups is not None:
            is_chosen = np.array([group_of(clip) in groups for clip in train])
            plural = "" if len(groups) == 1 else "s"
            how = f"of {noun}{plural} {_listed(groups)}"
            break
    else:
        clip_ids = choose_stratified(train, share, seed)
        is_chosen = np.array([clip.clip_id in clip_ids for clip in train])
        how = f"of {len(train)} chosen at random, gloss by gloss,"
    if not is_chosen.any():
        raise DataError(
            f"{train.source}: found {count_of(len(train), 'clip')} and no gloss with two; expected "
            "some to validate on beside those to train on: name a file with --val"
        )
    note = (
        f"validation: {count_of(int(is_chosen.sum()), 'clip')} {how} split off from "
        "training (no validation set was given)"
    )
    return is_chosen, note


def _signer(clip: Clip) -> str | None:
    return clip.signer


def _session(clip: Clip) -> str | None:
    return clip.session


def _listed(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(name if name.isprintable() else quote(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _beside(
    training: SignDataset, dataset: SignDataset, part: str, skip_bad_clips: bool
) -> tuple[SignDataset, list[str]]:
    """A part under the classes of training, and what a user should know about it.

    Worth a note are glosses it never shows, clips left out, and clips it shares with training.
    """
    known = with_known_glosses(dataset, training.classes, skip_bad_clips=skip_bad_clips)
    notes = list(known.notes[len(dataset.notes) :])
    name, shown = _LONG_NAME[part], {clip.gloss for clip in known}
    absent = [gloss for gloss in training.classes if gloss not in shown]
    if absent:
        notes.append(
            f"{name} lacks {len(absent)} of the {len(training.classes)} glosses "
            f"of training: {some_of(absent)}"
        )
    leaks = _leaks(training, known, name)
    if leaks:
        notes.append(leaks)
    return replace(known, notes=dataset.notes), notes


def _leaks(training: SignDataset, known: SignDataset, name: str) -> str | None:
    """The cheap part of `slrctl data audit`, in one line."""
    # Imported late: it takes scipy, which nothing else here needs.
    from slrctl.core.data.audit.quick import copies_in, essentials, shared_names

    found = []
    copies = copies_in(essentials(training), known)
    if copies:
        num_exact = np.count_nonzero(np.isin(known.digests, training.digests))
        how = "landmark for landmark"
        if num_exact < len(copies):
            how = f"{num_exact} {how}, the others moved, scaled or mirrored"
        found.append(
            f"warning: {len(copies)} of {len(known)} {name} clips are in training too, {how}; "
            "their score says nothing about new clips"
        )
    for kind, names in shared_names(training, known):
        found.append(f"{name} shares {count_of(len(names), kind)} with training ({_listed(names)})")
    return f"{'; '.join(found)}; slrctl data audit says more" if found else None
