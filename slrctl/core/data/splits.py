"""Clips that train, validate and test: given, marked in a column, named by signer, or held out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Float32
from scipy.spatial import KDTree

from slrctl.core import skeleton
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
from slrctl.core.data.mirror import MIRRORED, lead_with_right, mirrored_copy
from slrctl.core.data.splitter import (
    SPLITS,
    UNITS,
    Unit,
    choose_stratified,
    divide_clips,
    split_name,
    splits_of_named,
)
from slrctl.core.data.synthetic import synthesise
from slrctl.errors import DataError, SlrctlError, UsageError, count_of, quote, some_of
from slrctl.settings import DataSettings, Settings

_LONG_NAME = {"train": "training", "val": "validation", "test": "test"}
# A best checkpoint chosen on less than this share of the glosses would say little about the rest.
_FEWEST_GLOSSES = 0.5
# Few large signers are held out rather than many small ones.
_GROUP_COST = 0.3
# Landmarks of a clip that are compared to find copies, and the largest difference, in spreads of
# the coordinates: float16 and rounding to three places leave less.
_NUM_POINTS = 12
_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Splits:
    """The clips of a training, under one tuple of classes: those of its training split.

    `notes` say in one line each how the splits came about.
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


def group_name(clip: Clip, unit: Unit) -> str | None:
    """Return the signer or session; two signers' sessions of one name are two sessions."""
    if unit == "signer" or clip.session is None or clip.signer is None:
        return clip.signer if unit == "signer" else clip.session
    return f"{clip.signer} / {clip.session}"


def copies_in(training: Sequence[Clip], others: Sequence[Clip]) -> set[int]:
    """Return the rows of the other clips that are training clips, moved, scaled or mirrored.

    Such a copy misses the landmarks that the original misses, and has the same coordinates once
    both axes are measured from their mean in their spread.
    """
    points: dict[bytes, list[Float32[np.ndarray, " 24"]]] = defaultdict(list)
    for clip in training:
        if (essence := _essence(clip.landmarks)) is not None:
            points[essence[0]].append(essence[1])
    trees: dict[bytes, KDTree] = {}
    found = set()
    for row, clip in enumerate(others):
        mirror_image = clip.landmarks[:, skeleton.MIRROR] * np.array([-1, 1], np.float32)
        for landmarks in (clip.landmarks, mirror_image):
            essence = _essence(landmarks)
            if essence is None or essence[0] not in points:
                continue
            key, values = essence
            if key not in trees:
                trees[key] = KDTree(np.array(points[key]))
            distance, _ = trees[key].query(values, p=np.inf, distance_upper_bound=_TOLERANCE)
            if np.isfinite(distance):
                found.add(row)
    return found


def _essence(
    landmarks: Float32[np.ndarray, "T 54 2"],
) -> tuple[bytes, Float32[np.ndarray, " 24"]] | None:
    """Hash what is missing of a clip, and scale a few known landmarks; None if none is known."""
    is_known = ~np.isnan(landmarks[..., 0])
    known = landmarks[is_known]
    if len(known) == 0:
        return None
    key = blake2b(np.packbits(is_known).tobytes(), digest_size=8)
    key.update(len(landmarks).to_bytes(4, "little"))
    spread = np.maximum(known.std(axis=0), 1e-6)
    chosen = known[np.linspace(0, len(known) - 1, _NUM_POINTS).astype(np.int64)]
    return key.digest(), ((chosen - known.mean(axis=0)) / spread).ravel()


def _splits_of_training_file(train: SignDataset) -> tuple[list[str], list[str]]:
    """Return the split of each row by the split column, and notes; all train if it has none."""
    if all(clip.split is None for clip in train):
        return ["train"] * len(train), []
    splits: list[str] = []
    for row, clip in enumerate(train):
        split = split_name(clip.split)
        if split is None:
            found = "null, while other rows have one" if clip.split is None else quote(clip.split)
            raise DataError(
                f"{train.source}: row {row + 1} (clip {quote(clip.clip_id)}), column 'split': "
                f"found {found}; expected train, val or test in every row, or null in all of them"
            )
        splits.append(split)
    counts = ", ".join(f"{splits.count(name)} {name}" for name in SPLITS if name in splits)
    if "train" not in splits:
        raise DataError(
            f"{train.source}: column 'split': found {counts} and no row for training; "
            "mark some rows as train, or name another file with --train"
        )
    return splits, [f"split column of {train.name}: {counts}"]


def _splits_by_signer(
    train: SignDataset, settings: DataSettings
) -> tuple[list[str | None], list[str]]:
    """Return the split of each row by the signers named in the settings, and a note.

    Where signers to train on are named and none to test on, all others test; where none to train
    on are named, all others train. Other clips of signers who are not named are in no split.

    Raises:
        UsageError: a signer is named for two splits, or nobody is left to train on.
        DataError: a clip has no signer, or no clip has a name that was given.
    """
    named = {
        "train": settings.train_signers or (),
        "val": settings.val_signers or (),
        "test": settings.test_signers or (),
    }
    try:
        split_of = splits_of_named(train, "signer", named)
    except SlrctlError as error:
        raise type(error)(f"{train.source}: {error}") from None
    default = "train" if not named["train"] else None if named["test"] else "test"
    splits = [split_of.get(clip.signer or "", default) for clip in train]
    if "train" not in splits:
        raise UsageError(f"{train.source}: every signer validates or tests; leave some to train on")
    counts = []
    for name in SPLITS:
        signers = {c.signer for c, split in zip(train, splits, strict=True) if split == name}
        if signers:
            names = some_of(sorted(filter(None, signers)))
            counts.append(f"{name} {names} ({count_of(splits.count(name), 'clip')})")
    return splits, [f"splits by signer: {', '.join(counts)}"]


def _clips_of_given_file(
    given: SignDataset, split: str, num_overridden: int
) -> tuple[SignDataset, str]:
    """Return the rows that a file marks for the split it is named for, if any, else all; a note."""
    marked = rows_where(given, lambda clip: split_name(clip.split) == split)
    name, clips = _LONG_NAME[split], count_of(len(marked) or len(given), "clip")
    if 0 < len(marked) < len(given):
        note = f"{name}: {clips} of {given.name}, the rows its split column marks {split}"
    else:
        note = f"{name}: all {clips} of {given.name}"
    if num_overridden:
        note += (
            f", instead of the {count_of(num_overridden, 'row')} the training file marks {split}"
        )
    return (given.select(marked) if len(marked) else given), note


def _hold_out(train: SignDataset, share: float, seed: int) -> tuple[Bool[np.ndarray, " N"], str]:
    """Choose the training clips that validate instead, and describe the choice.

    They are those of a few whole signers, or sessions, where these have between half and twice the
    share of the clips and half of the glosses, and leave every gloss to training. Otherwise each
    gloss gives its share.
    """
    for unit in UNITS:
        names = {getattr(clip, unit) for clip in train}
        if None in names or len(names) < 2:
            continue
        shares = (1 - share, share, 0.0)
        split_of = divide_clips(train, unit, shares, seed, group_cost=_GROUP_COST)
        is_held_out = np.array([split_of[getattr(clip, unit)] == "val" for clip in train])
        if _is_fit([clip.gloss for clip in train], is_held_out, share):
            chosen = [name for name in sorted(split_of) if split_of[name] == "val"]
            return is_held_out, f"of {unit}{'s' * (len(chosen) > 1)} {some_of(chosen)}"
    clip_ids = choose_stratified(train, share, seed)
    is_held_out = np.array([clip.clip_id in clip_ids for clip in train])
    return is_held_out, f"of {len(train)} chosen at random, gloss by gloss,"


def _is_fit(glosses: Sequence[str], is_held_out: Bool[np.ndarray, " N"], share: float) -> bool:
    held_out = {gloss for gloss, is_out in zip(glosses, is_held_out, strict=True) if is_out}
    kept = {gloss for gloss, is_out in zip(glosses, is_held_out, strict=True) if not is_out}
    return (
        share / 2 <= float(is_held_out.mean()) <= 2 * share
        and held_out <= kept
        and len(held_out) >= _FEWEST_GLOSSES * len(kept)
    )


def _under_training_classes(
    training: SignDataset, dataset: SignDataset, split: str, *, skip_bad_clips: bool
) -> tuple[SignDataset, list[str]]:
    """Put a split under the classes of training, and note clips left out, glosses and leaks."""
    known = with_known_glosses(dataset, training.classes, skip_bad_clips=skip_bad_clips)
    notes = list(known.notes[len(dataset.notes) :])
    name, shown = _LONG_NAME[split], {clip.gloss for clip in known}
    absent = [gloss for gloss in training.classes if gloss not in shown]
    if absent:
        notes.append(
            f"{name} lacks {len(absent)} of the {len(training.classes)} glosses "
            f"of training: {some_of(absent)}"
        )
    leaks = _leaks(training, known, name)
    if leaks:
        notes.append(f"{'; '.join(leaks)}; slrctl data audit says more")
    return replace(known, notes=dataset.notes), notes


def _leaks(training: SignDataset, known: SignDataset, name: str) -> list[str]:
    """Describe the leaks that are found at next to no cost."""
    found = []
    copies = copies_in(training, known)
    if copies:
        num_exact = np.count_nonzero(np.isin(known.digests, training.digests))
        how = "landmark for landmark"
        if num_exact < len(copies):
            how = f"{num_exact} {how}, the others moved, scaled or mirrored"
        found.append(
            f"warning: {len(copies)} of {len(known)} {name} clips are in training too, {how}; "
            "their score says nothing about new clips"
        )
    for unit in UNITS:
        names = {group_name(clip, unit) for clip in training}
        names.intersection_update(group_name(clip, unit) for clip in known)
        shared = sorted(filter(None, names))
        if shared:
            listed = some_of(shared)
            found.append(f"{name} shares {count_of(len(shared), unit)} with training ({listed})")
    return found


def choose_splits(
    train: SignDataset,
    val: SignDataset | None,
    test: SignDataset | None,
    settings: DataSettings,
    seed: int,
) -> Splits:
    """Take the splits from the files given, else from a split column, else hold validation out.

    Args:
        train: clips of the training file; a split column there gives the split of each row.
        val: clips of a file named for validation.
        test: clips of a file named for the test.
        settings: signers named for the splits, who replace the split column; `val_share`, held out
            where there is nothing to validate on; `skip_bad_clips`, those whose gloss training
            lacks.
        seed: decides which clips are held out.

    Raises:
        UsageError: the signers named do not make splits.
        DataError: the split column is incomplete or leaves nothing to train on, a split shows a
            gloss that training lacks, or there are too few clips to hold some out.
    """
    if settings.train_signers or settings.val_signers or settings.test_signers:
        split_of_row, notes = _splits_by_signer(train, settings)
    else:
        split_of_row, notes = _splits_of_training_file(train)
    rows = {name: np.flatnonzero([split == name for split in split_of_row]) for name in SPLITS}
    others = replace(train, notes=())
    training = train.select(rows["train"])
    validation = others.select(rows["val"])
    testing = others.select(rows["test"]) if len(rows["test"]) else None
    if val is not None:
        validation, note = _clips_of_given_file(val, "val", len(rows["val"]))
        notes.append(note)
    elif not len(rows["val"]):
        is_held_out, how = _hold_out(training, settings.val_share, seed)
        if not is_held_out.any():
            raise DataError(
                f"{train.source}: found {count_of(len(training), 'clip')} and no gloss with two; "
                "expected some to validate on beside those to train on: name a file with --val"
            )
        validation = replace(training.select(np.flatnonzero(is_held_out)), notes=())
        training = training.select(np.flatnonzero(~is_held_out))
        notes.append(
            f"validation: {count_of(len(validation), 'clip')} {how} split off from training "
            "(no validation set was given)"
        )
    if test is not None:
        testing, note = _clips_of_given_file(test, "test", len(rows["test"]))
        notes.append(note)

    training = replace(training, classes=ordered_classes(clip.gloss for clip in training))
    skip = settings.skip_bad_clips
    validation, remarks = _under_training_classes(training, validation, "val", skip_bad_clips=skip)
    notes += remarks
    if testing is not None:
        testing, remarks = _under_training_classes(training, testing, "test", skip_bad_clips=skip)
        notes += remarks
    return Splits(training, validation, testing, tuple(notes))


def with_mirrored_copies(dataset: SignDataset) -> SignDataset:
    """Put beside every clip its mirrored copy, in the canonical form of the others.

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
    is_led_by_right = dataset.canonical is not None and dataset.canonical.dominant_hand == "right"
    clips: list[Clip] = []
    for clip in dataset:
        copy = mirrored_copy(clip)
        clips += [clip, lead_with_right(copy) if is_led_by_right else copy]
    return replace(dataset, clips=tuple(clips))


def load_splits(settings: Settings, cache: ClipCache | None = None) -> Splits:
    """Read what `data.train`, `data.val` and `data.test` name; the demo set if nothing is named.

    Args:
        settings: `data` names the files, `prepare` the form their clips are brought into.
        cache: where clips are kept once they are read; without it they are held in memory.

    Raises:
        UsageError: clips are named for validation or test, but none for training.
        DataError: a file cannot be read, or the splits do not fit together.
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
    splits = choose_splits(train, val, test, data, settings.seed)
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
