"""Take out of a set what one part tells of another, or bring it together in one part."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.audit.report import Audit, audit_parts

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
