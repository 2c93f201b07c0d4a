"""Clips of one file or of several, as one set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.formats import read_clips
from slrctl.core.data.formats.reading import BadClip, quote
from slrctl.core.data.splits import part_of
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings


class Dropped(NamedTuple):
    """A clip that was left out, and the file it stood in."""

    source: Path
    clip: BadClip


class Sources(NamedTuple):
    """The clips of all files, in their order, with notes on how each was read."""

    clips: list[Clip]
    notes: list[str]
    dropped: list[Dropped]


def read_sources(
    paths: Sequence[Path], settings: DataSettings, splits: Sequence[str] = ()
) -> Sources:
    """Read files into one set.

    Integer labels of all files are counted as in the first, the training file.

    Args:
        paths: at least one, in any format of `formats.READERS`.
        settings: how to read them.
        splits: what the split column shall say: nothing to leave it, one name for all clips, or a
            name for each file.

    Raises:
        UsageError: the number of splits fits neither, or one of them is no part.
        DataError: a file cannot be read, or two clips have the same id.
    """
    marks = _marks(splits, len(paths))
    clips: list[Clip] = []
    notes: list[str] = []
    dropped: list[Dropped] = []
    classes = None
    for path, mark in zip(paths, marks, strict=True):
        reading = read_clips(path, settings, classes)
        clips += (
            reading.clips if mark is None else [replace(clip, split=mark) for clip in reading.clips]
        )
        notes += [note if len(paths) == 1 else f"{path}: {note}" for note in reading.notes]
        dropped += [Dropped(path, clip) for clip in reading.dropped]
        classes = classes or ordered_classes(clip.gloss for clip in clips)
    if len(paths) > 1:
        _check_ids(clips)
    return Sources(clips, notes, dropped)


def _marks(splits: Sequence[str], num_files: int) -> list[str | None]:
    for split in splits:
        if part_of(split) is None:
            raise UsageError(f"--split {split}: is no part; name train, val or test")
    if len(splits) not in (0, 1, num_files):
        raise UsageError(
            f"--split: {len(splits)} parts for {num_files} files; give one for all of them, or "
            "one for each in their order"
        )
    named = [part_of(split) for split in splits] or [None]
    return named if len(named) == num_files else named * num_files


def _check_ids(clips: Sequence[Clip]) -> None:
    seen: set[str] = set()
    for clip in clips:
        if clip.clip_id in seen:
            raise DataError(
                f"clip {quote(clip.clip_id)} is in two of the files; ids of a CSV begin with the "
                "name of its file, so rename one, or leave one out"
            )
        seen.add(clip.clip_id)
