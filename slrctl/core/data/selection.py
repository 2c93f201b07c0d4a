"""Choose a few clips of many, to look at or to keep."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.formats.reading import nearest_of, quote
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError


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
