"""Choose a few clips of many, to look at or to keep."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.readers import read_clips
from slrctl.core.data.readers.reading import BadClip
from slrctl.core.data.splitter import split_name
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError, UsageError, nearest_of, quote
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
    """Choose for each of the first glosses the clip with the median share of missing landmarks.

    The most complete one would show a set better than it is.
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
    """Look up a clip by id or number.

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
    """A clip that was left out, and its file."""

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
        paths: at least one, in any format of `readers.READERS`.
        settings: how to read them.
        splits: replace the split column: nothing to leave it, one name for all clips, or a name
            for each file.

    Raises:
        UsageError: the number of splits fits neither, or one of them is no split.
        DataError: a file cannot be read, or two clips have the same id.
    """
    for name in splits:
        if split_name(name) is None:
            raise UsageError(f"--split {name}: is no split; name train, val or test")
    if len(splits) not in (0, 1, len(paths)):
        raise UsageError(
            f"--split: {len(splits)} splits for {len(paths)} files; give one for all of them, or "
            "one for each in their order"
        )
    named = [split_name(name) for name in splits] or [None]
    clips: list[Clip] = []
    notes: list[str] = []
    dropped: list[Dropped] = []
    classes = None
    for path, split in zip(paths, named * (len(paths) // len(named)), strict=True):
        reading = read_clips(path, settings, classes)
        clips += (replace(clip, split=split or clip.split) for clip in reading.clips)
        notes += [note if len(paths) == 1 else f"{path}: {note}" for note in reading.notes]
        dropped += [Dropped(path, clip) for clip in reading.dropped]
        classes = classes or ordered_classes(clip.gloss for clip in clips)
    clip_id, count = Counter(clip.clip_id for clip in clips).most_common(1)[0]
    if count > 1 and len(paths) > 1:
        raise DataError(
            f"clip {quote(clip_id)} is in two of the files; ids of a CSV begin with its name, so "
            "rename one file, or leave one out"
        )
    return Sources(clips, notes, dropped)
