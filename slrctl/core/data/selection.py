"""Choose a few clips of many, to look at or to keep."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.readers import read_clips
from slrctl.core.data.readers.reading import BadClip, nearest_of, quote
from slrctl.core.data.splits import split_name
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings


def spread_over_glosses(clips: Sequence[Clip], count: int, seed: int) -> list[Clip]:
    """Choose clips so that no gloss has two more than another, while it has any left.

    Which clips of a gloss are taken follows from the seed and their ids; they stay in their order.
    """
    turns: dict[str, int] = defaultdict(int)
    in_turn = []
    for clip in sorted(clips, key=lambda clip: (stable_seed(seed, clip.clip_id), clip.clip_id)):
        in_turn.append((turns[clip.gloss], stable_seed(seed, clip.gloss), clip.clip_id))
        turns[clip.gloss] += 1
    chosen = {clip_id for *_, clip_id in sorted(in_turn)[:count]}
    return [clip for clip in clips if clip.clip_id in chosen]


def typical_clips(clips: Sequence[Clip], most: int) -> list[Clip]:
    """One clip for each of the first glosses: the one in the middle by its missing landmarks.

    Not the most complete one, which would show a set better than it is.
    """
    by_gloss: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_gloss[clip.gloss].append(clip)
    chosen = []
    for gloss in ordered_classes(by_gloss)[:most]:
        ranked = sorted(by_gloss[gloss], key=lambda clip: float(np.isnan(clip.landmarks).mean()))
        chosen.append(ranked[(len(ranked) - 1) // 2])
    return chosen


def find_clip(clips: Sequence[Clip], which: str | None = None, gloss: str | None = None) -> Clip:
    """The clip somebody means.

    Args:
        clips: to look among.
        which: its id, or its number, counted from 1; the first if absent.
        gloss: the clip shows this; numbers then count the clips of this gloss.

    Raises:
        DataError: there is no such clip or gloss; the message names the nearest.
    """
    if gloss is not None:
        glosses = {clip.gloss for clip in clips}
        if gloss not in glosses:
            raise DataError(f"no clip of gloss {quote(gloss)}; {nearest_of(gloss, glosses)}")
        clips = [clip for clip in clips if clip.gloss == gloss]
    if which is None:
        return clips[0]
    for clip in clips:
        if clip.clip_id == which:
            return clip
    if which.isascii() and which.isdigit():
        if 1 <= int(which) <= len(clips):
            return clips[int(which) - 1]
        raise DataError(f"no clip {which}: they are numbered from 1 to {len(clips):,}")
    raise DataError(f"no clip {quote(which)}; {nearest_of(which, [c.clip_id for c in clips])}")


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
        if split_name(split) is None:
            raise UsageError(f"--split {split}: is no part; name train, val or test")
    if len(splits) not in (0, 1, num_files):
        raise UsageError(
            f"--split: {len(splits)} parts for {num_files} files; give one for all of them, or "
            "one for each in their order"
        )
    named = [split_name(split) for split in splits] or [None]
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
