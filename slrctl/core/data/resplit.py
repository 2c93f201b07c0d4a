"""Give every clip of a set its part: chosen people or sessions, the others as the shares say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.formats.reading import count_of, nearest_of, quote, some_of
from slrctl.core.data.group_division import PARTS, divide_groups
from slrctl.core.data.holdout import choose_stratified
from slrctl.errors import DataError, UsageError

Unit = Literal["signer", "session"]


class PartCounts(NamedTuple):
    """What a part holds."""

    part: str
    clips: int
    glosses: tuple[str, ...]
    signers: tuple[str, ...]
    sessions: tuple[str, ...]
    lacking: tuple[str, ...]
    """Glosses that other parts show."""


def split_clips(
    clips: Sequence[Clip],
    by: Unit | Literal["random"],
    *,
    val_share: float,
    test_share: float,
    seed: int,
) -> list[Clip]:
    """Divide clips into parts, each with its share of every gloss as nearly as whole groups allow.

    Args:
        clips: any; what their split said before is forgotten.
        by: signer or session keeps the clips of one together; random divides them one by one.
        val_share: of all clips, for validation; 0 for none.
        test_share: of all clips, for the test; 0 for none.
        seed: decides among choices that are as good.

    Raises:
        UsageError: the shares leave nothing to train on.
        DataError: clips without a signer or session, or fewer of them than parts.
    """
    if val_share + test_share >= 1:
        raise UsageError(
            f"--val-share {val_share:g} and --test-share {test_share:g}: leave nothing to train "
            "on; their sum must be below 1"
        )
    if by == "random":
        return _divide_at_random(clips, val_share, test_share, seed)
    groups = groups_by(clips, by)
    shares = (1 - val_share - test_share, val_share, test_share)
    num_parts = sum(share > 0 for share in shares)
    if len(groups) < num_parts:
        raise DataError(
            f"found {count_of(len(groups), by)} for {num_parts} parts; expected at least one "
            f"{by} for each: divide by something else with --by, or set a share to 0"
        )
    glosses = {g: index for index, g in enumerate(ordered_classes(clip.gloss for clip in clips))}
    counts = np.zeros((len(groups), len(glosses)), dtype=np.int64)
    for row, members in enumerate(groups.values()):
        for clip in members:
            counts[row, glosses[clip.gloss]] += 1
    chosen = divide_groups(counts, list(groups), shares, seed)
    return _marked(clips, by, dict(zip(groups, (PARTS[part] for part in chosen), strict=True)))


def assign_clips(
    clips: Sequence[Clip], unit: Unit, chosen: Mapping[str, Sequence[str]]
) -> tuple[list[Clip], list[Clip]]:
    """Put the clips of named people, or sessions, into the parts they are named for.

    Args:
        clips: any.
        unit: what the names are those of.
        chosen: the names for each part.

    Returns:
        The clips of those named, marked, and those of all others, as they are.

    Raises:
        UsageError: a name is in two parts.
        DataError: a name that nobody has, or clips without one.
    """
    part_of: dict[str, str] = {}
    for part, names in chosen.items():
        for name in names:
            if part_of.setdefault(name, part) != part:
                raise UsageError(
                    f"--{part}-{unit}s {name}: is in --{part_of[name]}-{unit}s too; a {unit} "
                    "belongs to one part"
                )
    known = groups_by(clips, unit)
    for name, part in part_of.items():
        if name not in known:
            raise DataError(
                f"--{part}-{unit}s {quote(name)}: no clip has this {unit}; "
                f"{nearest_of(name, known)}"
            )
    named = [clip for clip in clips if getattr(clip, unit) in part_of]
    others = [clip for clip in clips if getattr(clip, unit) not in part_of]
    return _marked(named, unit, part_of), others


def groups_by(clips: Sequence[Clip], unit: Unit) -> dict[str, list[Clip]]:
    """The clips of each signer or session, in the order of their names.

    Raises:
        DataError: clips without one.
    """
    unknown = [clip for clip in clips if getattr(clip, unit) is None]
    if unknown:
        raise DataError(
            f"{count_of(len(unknown), 'clip')} of {len(clips):,} without a {unit}, the first is "
            f"{quote(unknown[0].clip_id)}; expected one for every clip: divide by something else "
            "with --by, or add the column"
        )
    groups: dict[str, list[Clip]] = {name: [] for name in sorted({getattr(c, unit) for c in clips})}
    for clip in clips:
        groups[getattr(clip, unit)].append(clip)
    return groups


def count_parts(clips: Sequence[Clip]) -> list[PartCounts]:
    """What each part holds that has clips."""
    glosses = ordered_classes(clip.gloss for clip in clips)
    parts = []
    for part in PARTS:
        members = [clip for clip in clips if clip.split == part]
        if members:
            shown = {clip.gloss for clip in members}
            parts.append(
                PartCounts(
                    part=part,
                    clips=len(members),
                    glosses=tuple(gloss for gloss in glosses if gloss in shown),
                    signers=ordered_classes(c.signer for c in members if c.signer is not None),
                    sessions=ordered_classes(c.session for c in members if c.session is not None),
                    lacking=tuple(gloss for gloss in glosses if gloss not in shown),
                )
            )
    return parts


def split_warnings(parts: Sequence[PartCounts], wanted: Mapping[str, float]) -> list[str]:
    """A warning for each part that lacks a gloss, or is far from the share it should have.

    Args:
        parts: of one set.
        wanted: the share of those parts whose size was to be chosen.
    """
    notes = []
    total = sum(part.clips for part in parts)
    for part in parts:
        share = part.clips / total
        aim = wanted.get(part.part, share)
        if abs(share - aim) > max(0.3 * aim, 0.03):
            notes.append(
                f"warning: {part.part} has {100 * share:.0f} % of the clips where {100 * aim:.0f} "
                "% were wanted: no choice of whole groups comes nearer without other harm"
            )
        if part.lacking:
            so = (
                "training would refuse the clips of them in other parts"
                if part.part == "train"
                else "its numbers say nothing about them"
            )
            notes.append(
                f"warning: {part.part} lacks {len(part.lacking)} of "
                f"{len(part.glosses) + len(part.lacking)} glosses "
                f"({some_of(list(part.lacking))}): {so}"
            )
    return notes


def _divide_at_random(
    clips: Sequence[Clip], val_share: float, test_share: float, seed: int
) -> list[Clip]:
    """Gloss by gloss; the test clips first, the validation clips from those left."""
    part_of: dict[str, str] = {}
    left = list(clips)
    for part, share in (("test", test_share), ("val", val_share / (1 - test_share))):
        if share > 0:
            chosen = choose_stratified(left, share, seed)
            part_of |= dict.fromkeys(chosen, part)
            left = [clip for clip in left if clip.clip_id not in chosen]
    return [replace(clip, split=part_of.get(clip.clip_id, "train")) for clip in clips]


def _marked(clips: Sequence[Clip], unit: Unit, part_of: Mapping[str, str]) -> list[Clip]:
    return [replace(clip, split=part_of[getattr(clip, unit)]) for clip in clips]
