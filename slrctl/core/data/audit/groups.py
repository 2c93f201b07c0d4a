"""What names tell about the parts of a set: who signs in several, and what a part never shows."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes

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
