"""Decide which clips train, validate and test."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import (
    SignDataset,
    canonical_dataset,
    load_dataset,
    ordered_classes,
    rows_where,
    with_known_glosses,
)
from slrctl.core.data.mirror import MIRRORED, mirrored_copy
from slrctl.core.data.prepare import led_by_right
from slrctl.core.data.readers.reading import count_of, quote, some_of
from slrctl.core.data.synthetic import synthesise
from slrctl.core.seeding import stable_seed
from slrctl.core.skeleton import LEFT_HAND, RIGHT_HAND
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings, Settings

# Up to this many signers (or sessions) every choice of them is looked at: 4,095 choices.
_MOST_GROUPS = 12
# What a choice costs, in held-out groups: one more of them weighs as much as missing the wanted
# size by a fifth (2 ** 0.25), or as an eighth of the glosses never being validated.
_SIZE_WEIGHT = 4.0
_GLOSS_WEIGHT = 8.0
# A best checkpoint chosen on less than this share of the glosses would say little about the rest.
_FEWEST_GLOSSES = 0.5


def choose_whole_groups(
    clips: Sequence[Clip], group_of: Callable[[Clip], str | None], share: float, seed: int
) -> list[str] | None:
    """Names of the groups to hold out, or None if no choice of whole groups will do.

    A choice will do if it has between half and twice `share` of the clips and half of the glosses,
    and what it leaves has every gloss. The cheapest one is taken: few groups, near the wanted
    size, many glosses. Clips without a group rule out a choice.
    """
    groups = [group_of(clip) for clip in clips]
    order = sorted(
        {group for group in groups if group is not None},
        key=lambda group: (stable_seed(seed, "held-out group", group), group),
    )
    if None in groups or len(order) < 2:
        return None
    glosses = {gloss: index for index, gloss in enumerate(sorted({clip.gloss for clip in clips}))}
    counts = np.zeros((len(order), len(glosses)), dtype=np.int64)
    for clip, group in zip(clips, groups, strict=True):
        counts[order.index(group or ""), glosses[clip.gloss]] += 1

    target = share * len(clips)
    is_exhaustive = len(order) <= _MOST_GROUPS
    choices = _all_choices(len(order)) if is_exhaustive else _filled_in_turn(counts, target)
    best = _cheapest(choices, counts, target)
    return None if best is None else sorted(order[index] for index in np.flatnonzero(best))


def _all_choices(num_groups: int) -> Bool[np.ndarray, "N G"]:
    numbers = np.arange(1, 2**num_groups)
    return (numbers[:, None] >> np.arange(num_groups)) % 2 == 1


def _filled_in_turn(counts: Int64[np.ndarray, "G K"], target: float) -> Bool[np.ndarray, "N G"]:
    """From each group on, take groups in turn until the wanted size is reached."""
    sizes = counts.sum(axis=1).tolist()
    choices = np.zeros((len(sizes), len(sizes)), dtype=bool)
    for start, choice in enumerate(choices):
        size = 0
        for index in (np.arange(len(sizes)) + start) % len(sizes):
            if size < target and size + sizes[index] <= 2 * target:
                choice[index] = True
                size += sizes[index]
    return choices


def _cheapest(
    choices: Bool[np.ndarray, "N G"], counts: Int64[np.ndarray, "G K"], target: float
) -> Bool[np.ndarray, " G"] | None:
    held_out = choices.astype(np.float64) @ counts  # exact, and faster than with integers
    sizes = held_out.sum(axis=1)
    is_fit = (sizes >= target / 2) & (sizes <= 2 * target)
    is_fit &= (held_out < counts.sum(axis=0)).all(axis=1)
    is_fit &= (held_out > 0).mean(axis=1) >= _FEWEST_GLOSSES
    if not is_fit.any():
        return None
    costs: Float[np.ndarray, " N"] = (
        choices.sum(axis=1)
        + _SIZE_WEIGHT * np.abs(np.log2(np.maximum(sizes, 1) / target))
        + _GLOSS_WEIGHT * (held_out == 0).mean(axis=1)
    )
    # Groups come in a seeded order and the first minimum wins: among equals the seed decides.
    return choices[np.argmin(np.where(is_fit, costs, np.inf))]


def choose_stratified(clips: Sequence[Clip], share: float, seed: int) -> set[str]:
    """Ids of clips to hold out: of each gloss its share, but never its last clip.

    Fractions of a clip are carried from gloss to gloss, so that the whole has its share too.
    """
    by_gloss: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        by_gloss[clip.gloss].append(clip.clip_id)
    chosen: set[str] = set()
    wanted = 0.0
    for gloss in sorted(by_gloss, key=lambda gloss: (stable_seed(seed, "gloss", gloss), gloss)):
        clip_ids = by_gloss[gloss]
        clip_ids.sort(key=lambda clip_id: (stable_seed(seed, "held-out clip", clip_id), clip_id))
        wanted += share * len(clip_ids)
        # Nor does a gloss make up for others that have no clip to spare.
        most = min(ceil(share * len(clip_ids)), len(clip_ids) - 1)
        count = min(round(wanted) - len(chosen), most)
        chosen.update(clip_ids[: max(count, 0)])
    if not chosen:
        largest = max(by_gloss.values(), key=len)
        chosen.update(largest[: min(1, len(largest) - 1)])
    return chosen


def signers_of(clips: Iterable[Clip]) -> list[str]:
    """The signers' names, in order."""
    return sorted({clip.signer for clip in clips if clip.signer is not None})


def are_chosen(settings: DataSettings) -> bool:
    """Whether the settings name people at all."""
    return any((settings.train_signers, settings.val_signers, settings.test_signers))


def rows_by_signer(
    clips: SignDataset, settings: DataSettings
) -> tuple[dict[str, Int64[np.ndarray, " M"]], str]:
    """The rows of each part by signer, whatever the split column says, and a note on it.

    Where people to train on are named and none to test on, all others test; where people to test
    on are named and none to train on, all others train. Clips of people in no part are left out.

    Args:
        clips: of one set.
        settings: `train_signers`, `val_signers`, `test_signers`, at least one of them.

    Raises:
        UsageError: somebody is named for two parts, or nobody is left to train on.
        DataError: a clip has no signer, or nobody has a name that was given.
    """
    signers = [clip.signer for clip in clips]
    unknown = signers.count(None)
    if unknown:
        raise DataError(
            f"{clips.source}: {count_of(unknown, 'clip')} of {len(clips)} without a signer, so "
            "parts cannot be chosen by person; fill in the signer column, or leave "
            "data.train_signers, val_signers and test_signers out"
        )
    named = {
        "train": settings.train_signers or (),
        "val": settings.val_signers or (),
        "test": settings.test_signers or (),
    }
    everybody = signers_of(clips)
    _check_names(named, everybody, clips.source)
    rest = tuple(name for name in everybody if not any(name in part for part in named.values()))
    if not named["train"]:
        named["train"] = rest
    elif not named["test"]:
        named["test"] = rest
    if not named["train"]:
        raise UsageError(f"{clips.source}: every signer validates or tests; leave some to train on")
    rows = {
        part: np.flatnonzero([signer in names for signer in signers])
        for part, names in named.items()
    }
    counts = ", ".join(
        f"{part} {some_of(list(named[part]))} ({count_of(len(chosen), 'clip')})"
        for part, chosen in rows.items()
        if len(chosen)
    )
    return rows, f"parts by signer: {counts}"


def _check_names(named: dict[str, tuple[str, ...]], everybody: list[str], source: str) -> None:
    seen: dict[str, str] = {}
    for part, names in named.items():
        for name in names:
            if name not in everybody:
                near = difflib.get_close_matches(name, everybody, n=1, cutoff=0.0)
                raise DataError(
                    f"{source}: nobody is called {quote(name)} (data.{part}_signers); the nearest "
                    f"is {quote(near[0]) if near else 'nobody'}, of {some_of(everybody)}"
                )
            if seen.setdefault(name, part) != part:
                raise UsageError(
                    f"{quote(name)} is named for {seen[name]} and for {part}; one part each"
                )


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
class Splits:
    """The clips of a training, under one tuple of classes: those that training shows.

    `notes` say in one line each how the parts came about.
    """

    train: SignDataset
    val: SignDataset
    test: SignDataset | None
    notes: tuple[str, ...] = ()

    @property
    def by_name(self) -> dict[str, SignDataset]:
        """The splits that exist, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def split_name(split: str | None) -> str | None:
    """train, val or test, however a file spells it; None for anything else."""
    return None if split is None else _PART_OF.get(split.strip().lower())


def choose_splits(
    train: SignDataset,
    val: SignDataset | None,
    test: SignDataset | None,
    *,
    val_share: float,
    seed: int,
    skip_bad_clips: bool = False,
    people: DataSettings | None = None,
) -> Splits:
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
    return Splits(training, validation, testing, tuple(notes))


_Rows = Int64[np.ndarray, " M"]


def _rows_of_training_file(train: SignDataset) -> tuple[dict[str, _Rows], list[str]]:
    """The rows of the training file by what its split column says; all train if it has none."""
    if all(clip.split is None for clip in train):
        nothing = np.zeros(0, dtype=np.int64)
        return {"train": np.arange(len(train)), "val": nothing, "test": nothing}, []
    parts: list[str] = []
    for row, clip in enumerate(train):
        part = split_name(clip.split)
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
    marked = rows_where(given, lambda clip: split_name(clip.split) == part)
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


def with_mirrored_copies(dataset: SignDataset) -> SignDataset:
    """Every clip followed by its mirrored copy, in the canonical form of the others.

    Raises:
        DataError: a copy's id is taken, as in a set that holds mirrored copies already.
    """
    taken = {clip.clip_id for clip in dataset}
    for clip in dataset:
        if clip.clip_id + MIRRORED in taken:
            raise DataError(
                f"{dataset.source}: found clips {quote(clip.clip_id)} and "
                f"{quote(clip.clip_id + MIRRORED)}; the mirrored copy of the first would have the "
                "id of the second: leave data.val_mirrored off, or rename the second"
            )
    return replace(dataset, clips=tuple(_beside_copies(dataset)))


def _beside_copies(dataset: SignDataset) -> Iterator[Clip]:
    canonical = dataset.canonical
    for clip in dataset:
        copy = mirrored_copy(clip)
        is_led_by_right = canonical is not None and canonical.dominant_hand == "right"
        yield from (clip, led_by_right(copy) if is_led_by_right else copy)


def load_splits(settings: Settings, cache: ClipCache | None = None) -> Splits:
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
    splits = choose_splits(
        train,
        val,
        test,
        val_share=data.val_share,
        seed=settings.seed,
        skip_bad_clips=data.skip_bad_clips,
        people=data,
    )
    if data.val_mirrored:
        note = f"validation: {count_of(len(splits.val), 'clip')}, each beside its mirrored copy"
        mirrored = with_mirrored_copies(splits.val)
        splits = replace(splits, val=mirrored, notes=(*splits.notes, note))
    if len(set(splits.train.classes)) < 2:
        raise DataError(
            f"{train.name}: all training clips show {''.join(splits.train.classes)!r}; "
            "recognition needs clips of at least two glosses"
        )
    read = [
        f"{dataset.name}: {note}"
        for dataset in (train, val, test)
        if dataset is not None
        for note in dataset.notes
    ]
    return replace(splits, notes=(*read, *splits.notes))


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
