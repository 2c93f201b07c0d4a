"""The audit of a set in parts: copies, made clips, shared people, missing classes."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from slrctl.core.clip import Clip
from slrctl.core.data.audit.duplicates import (
    Leak,
    exact_copies,
    interpolated,
    near_copies,
    nearest_takes,
)
from slrctl.core.data.audit.fingerprint import FramedClips, fingerprint, in_image_frame
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.readers import read_clips
from slrctl.core.data.readers.reading import count_of, quote
from slrctl.core.data.splitter import split_name
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings

# Words that mark a made clip, and the number that may follow one of them.
_MADE = re.compile(
    r"[-_. ](aug(mented)?|copy|dup(licate)?|mirror(ed)?|flip(ped)?|smote|synth|interp|"
    r"jitter|noise|resampled|oversampled)[-_ ]?\d*$",
    re.IGNORECASE,
)


class SharedGroup(NamedTuple):
    """A signer or a session in several parts, with the number of clips in each of them."""

    kind: Literal["signer", "session"]
    name: str
    counts: dict[str, int]


class NameHint(NamedTuple):
    """A clip whose id says that it was made from another, and that other one."""

    made: int
    origin: int


def shared_groups(
    clips: Sequence[Clip], parts: Sequence[str], kind: Literal["signer", "session"]
) -> list[SharedGroup]:
    """Signers or sessions that several parts show, where they are named at all.

    Two signers may have recorded a session of the same name; those are two sessions.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for clip, part in zip(clips, parts, strict=True):
        name = _group_name(clip, kind)
        if name is not None:
            counts[name][part] += 1
    return [
        SharedGroup(kind, name, dict(by_part))
        for name, by_part in sorted(counts.items())
        if len(by_part) > 1
    ]


def _group_name(clip: Clip, kind: Literal["signer", "session"]) -> str | None:
    if kind == "signer" or clip.session is None:
        return clip.signer if kind == "signer" else None
    return clip.session if clip.signer is None else f"{clip.signer} / {clip.session}"


def missing_classes(clips: Sequence[Clip], parts: Sequence[str]) -> dict[str, list[str]]:
    """For each part that lacks some: the glosses that only other parts show."""
    shown: dict[str, set[str]] = defaultdict(set)
    for clip, part in zip(clips, parts, strict=True):
        shown[part].add(clip.gloss)
    everything = ordered_classes(clip.gloss for clip in clips)
    lacking = {
        part: [gloss for gloss in everything if gloss not in glosses]
        for part, glosses in shown.items()
    }
    return {part: glosses for part, glosses in lacking.items() if glosses}


def name_hints(clips: Sequence[Clip], parts: Sequence[str]) -> list[NameHint]:
    """Clips that are by their id a changed copy of a clip of another part, such as `abc_aug3`."""
    row_of = {clip.clip_id: row for row, clip in enumerate(clips)}
    hints = []
    for row, clip in enumerate(clips):
        origin = row_of.get(_MADE.sub("", clip.clip_id))
        if origin is not None and parts[origin] != parts[row]:
            hints.append(NameHint(row, origin))
    return hints


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found in the clips of several parts; rows count the clips as they were given.

    `across` holds for each clip the least difference to a clip of another part, `within` the same
    for a sample of the clips and their own part; both are inf where nothing is alike.
    """

    clips: Sequence[Clip]
    parts: Sequence[str]
    leaks: list[Leak]
    signers: list[SharedGroup]
    sessions: list[SharedGroup]
    missing: dict[str, list[str]]
    hints: list[NameHint]
    across: Float[np.ndarray, " N"]
    within: Float[np.ndarray, " M"]

    def count(self, kind: str) -> int:
        return sum(leak.kind == kind for leak in self.leaks)


def audit_parts(clips: Sequence[Clip], parts: Sequence[str]) -> Audit:
    """Look for anything by which one part of a set tells of another.

    Args:
        clips: the clips of all parts.
        parts: for each clip the name of its part.

    Raises:
        ValueError: there are fewer than two parts.
    """
    names = list(dict.fromkeys(parts))
    if len(names) < 2:
        raise ValueError(f"an audit compares parts, but all clips are in {names}")
    numbers = np.array([names.index(part) for part in parts])
    framed = FramedClips(clips)
    prints = fingerprint(framed)
    exact = exact_copies(clips, numbers)
    near, across = near_copies(framed, prints, numbers)
    known = {(leak.first, leak.second) for leak in exact}
    leaks = [*exact]
    for leak in sorted(near, key=lambda leak: leak.unexplained):
        if (leak.first, leak.second) not in known:
            known.add((leak.first, leak.second))
            leaks.append(leak)
    glosses = [clip.gloss for clip in clips]
    copied = {row for pair in known for row in pair}
    made = interpolated(FramedClips(clips, in_image_frame), glosses, numbers)
    made = [leak for leak in made if leak.first not in copied]
    across[list({row for leak in exact for row in leak[1:3]})] = 0.0
    return Audit(
        clips=clips,
        parts=parts,
        leaks=[*leaks, *sorted(made, key=lambda leak: leak.unexplained)],
        signers=shared_groups(clips, parts, "signer"),
        sessions=shared_groups(clips, parts, "session"),
        missing=missing_classes(clips, parts),
        hints=name_hints(clips, parts),
        across=across,
        within=nearest_takes(framed, prints, numbers),
    )


# What is worth most stays as it is: the test set, then validation. Parts of other names stand
# between, those named later being worth more.
_RANKS = {"train": -1.0, "val": 1e6, "test": 1e7}
_MOST_ROUNDS = 5


class Fixed(NamedTuple):
    """The clips that remain, each with its part as `split`, and what was changed.

    `dropped` and `moved` count clips by the part they were in. `remaining` is the audit of the
    result, in which no leak between clips is left.
    """

    clips: list[Clip]
    dropped: dict[str, int]
    moved: dict[str, int]
    remaining: Audit


def fix(audit: Audit, way: Literal["drop", "move"]) -> Fixed:
    """Drop or move clips until no clip tells of a clip in another part.

    Dropping takes of two copies the one in the part that is worth less: training before
    validation before test; and of a clip made of others that clip, wherever it is. Moving brings
    all of them into the part that is worth least. Every round is audited again, since what hid
    behind a copy shows only once that is gone.
    """
    clips = [replace(clip, split=part) for clip, part in zip(audit.clips, audit.parts, strict=True)]
    ranks = ranked(audit.parts)
    dropped, moved = Counter[str](), Counter[str]()
    for _ in range(_MOST_ROUNDS):
        if not audit.leaks:
            break
        parts = [clip.split or "" for clip in clips]
        if way == "drop":
            gone = {_less_worth(leak.kind, leak.first, leak.second, parts, ranks)
                    for leak in audit.leaks}  # fmt: skip
            dropped.update(parts[row] for row in gone)
            clips = [clip for row, clip in enumerate(clips) if row not in gone]
        else:
            for row, part in _gathered(audit, parts, ranks).items():
                if part != parts[row]:
                    moved[parts[row]] += 1
                    clips[row] = replace(clips[row], split=part)
        parts = [clip.split or "" for clip in clips]
        if len(set(parts)) < 2:
            audit = replace(audit, clips=clips, parts=parts, leaks=[])
        else:
            audit = audit_parts(clips, parts)
    return Fixed(clips, dict(dropped), dict(moved), audit)


def ranked(parts: Sequence[str]) -> dict[str, float]:
    """What each part is worth: the higher, the less it is touched."""
    names = list(dict.fromkeys(parts))
    return {name: _RANKS.get(name, float(place)) for place, name in enumerate(names)}


def _less_worth(
    kind: str, first: int, second: int, parts: Sequence[str], ranks: dict[str, float]
) -> int:
    if kind == "interpolated":
        return first
    return min(first, second, key=lambda row: ranks[parts[row]])


def _gathered(audit: Audit, parts: Sequence[str], ranks: dict[str, float]) -> dict[int, str]:
    """For each clip of a leak the part that all clips connected with it go to."""
    root = {row: row for leak in audit.leaks for row in leak.rows}

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for leak in audit.leaks:
        for row in leak.rows[1:]:
            root[find(row)] = find(leak.first)
    goal: dict[int, str] = {}
    for row in root:
        place = find(row)
        goal[place] = min(goal.get(place, parts[row]), parts[row], key=lambda part: ranks[part])
    return {row: goal[find(row)] for row in root}


def with_own_ids(clips: Sequence[Clip]) -> list[Clip]:
    """The clips; those that share an id are named after their part, and numbered if need be.

    Two files may call different clips alike; one file may not.
    """
    counts = Counter(clip.clip_id for clip in clips)
    taken = {clip_id for clip_id, count in counts.items() if count == 1}
    named = []
    for clip in clips:
        clip_id, number = clip.clip_id, 1
        if counts[clip_id] > 1:
            clip_id = f"{clip.split}/{clip.clip_id}"
            while clip_id in taken:
                number += 1
                clip_id = f"{clip.split}/{clip.clip_id}-{number}"
            taken.add(clip_id)
        named.append(replace(clip, clip_id=clip_id))
    return named


class PartFile(NamedTuple):
    """A file, and the part it was said to be, if that was said."""

    part: str | None
    path: Path


class ReadParts(NamedTuple):
    """The clips of all parts, for each the name of its part, and how the files were read.

    The `split` of every clip is the name of its part.
    """

    clips: list[Clip]
    parts: list[str]
    notes: list[str]


def part_file(argument: str) -> PartFile:
    """Read `PATH` or `PART=PATH`; a path that exists is a path, whatever its name holds."""
    name, separator, path = argument.partition("=")
    if not separator or Path(argument).exists():
        return PartFile(None, Path(argument))
    if not name or not path:
        raise UsageError(f"{argument}: expected PATH or PART=PATH, such as train=clips.csv")
    return PartFile(split_name(name) or name, Path(path))


def read_parts(files: Sequence[PartFile], settings: DataSettings) -> ReadParts:
    """Read files into parts; integer labels of all are counted as in the first.

    One file is divided by its split column. Of several, each is a part: called as the caller says,
    else train, val or test where its name has that word, else by its name. The rows that a file
    marks for the part it is given as are the part, if it marks any.

    Raises:
        UsageError: two files would be the same part.
        DataError: a file cannot be read, or one file alone has no split column or but one part.
    """
    if len(files) == 1 and files[0].part is None:
        return _one_file(files[0].path, settings)
    clips: list[Clip] = []
    notes: list[str] = []
    classes = None
    for name, (_, path) in zip(_names(files), files, strict=True):
        reading = read_clips(path, settings, classes)
        given = list(reading.clips)
        chosen = [clip for clip in given if split_name(clip.split) == name] or given
        notes += [f"{path}: {note}" for note in reading.notes]
        notes.append(f"{name}: {count_of(len(chosen), 'clip')} of {path}")
        clips += [replace(clip, split=name) for clip in chosen]
        classes = classes or ordered_classes(clip.gloss for clip in chosen)
    if len(files) == 1:
        raise DataError(f"{files[0].path}: is one part; name a file for another part beside it")
    return ReadParts(clips, [clip.split or "" for clip in clips], notes)


def _one_file(path: Path, settings: DataSettings) -> ReadParts:
    reading = read_clips(path, settings, None)
    parts = []
    for row, clip in enumerate(reading.clips):
        if clip.split is None:
            raise DataError(
                f"{path}: row {row + 1} (clip {quote(clip.clip_id)}), column 'split': found "
                "nothing, and an audit compares parts; divide the file with slrctl data split, or "
                "name a file for each part"
            )
        parts.append(split_name(clip.split) or clip.split)
    if len(set(parts)) < 2:
        raise DataError(
            f"{path}: column 'split': found {quote(parts[0])} in every row; expected two parts"
        )
    clips = [replace(clip, split=part) for clip, part in zip(reading.clips, parts, strict=True)]
    counts = ", ".join(f"{count} {part}" for part, count in Counter(parts).items())
    return ReadParts(clips, parts, [*reading.notes, f"split column of {path.name}: {counts}"])


def _names(files: Sequence[PartFile]) -> list[str]:
    words = [_word_in(file.path.stem) if file.part is None else None for file in files]
    taken = Counter([*filter(None, words), *(file.part for file in files if file.part)])
    names = [
        file.part or (word if word and taken[word] == 1 else file.path.stem)
        for file, word in zip(files, words, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(
                f"{count} files would be the part {name!r}; say which is which with PART=PATH"
            )
    return names


def _word_in(stem: str) -> str | None:
    """The part that a file's name speaks of, if it speaks of one alone."""
    found = {split_name(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return found.pop() if len(found) == 1 else None
