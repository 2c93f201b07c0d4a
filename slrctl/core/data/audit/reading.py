"""Read the parts to audit: one file with a split column, or a file for each part."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.formats import read_clips
from slrctl.core.data.formats.reading import count_of, quote
from slrctl.core.data.splits import part_of
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings


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
    return PartFile(part_of(name) or name, Path(path))


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
        chosen = [clip for clip in given if part_of(clip.split) == name] or given
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
        parts.append(part_of(clip.split) or clip.split)
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
    found = {part_of(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return found.pop() if len(found) == 1 else None
