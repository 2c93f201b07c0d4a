"""Give every clip of a set its part: chosen people or sessions, the others as the shares say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.readers.reading import count_of, nearest_of, quote, some_of
from slrctl.core.data.splits import choose_stratified
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError, UsageError

PARTS = ("train", "val", "test")

# Up to this many groups every way to divide them is looked at: 3 ** 8 = 6,561.
_MOST_EXHAUSTIVE = 8
_STARTS, _SWEEPS = 4, 10
_BLOCK = 256  # ways to divide that are looked at together
# What a way to divide costs, in shares of the clips that lie in the wrong part: a part without
# any clip rules it out, and so does, next, a gloss that is never trained on.
_EMPTY_PART = 1000.0
_NEVER_TRAINED = 10.0
# A gloss that is never validated or tested harms no other; the test is what is published.
_NEVER_VALIDATED, _NEVER_TESTED = 1.0, 1.5


class _Problem(NamedTuple):
    """Clips of each group and gloss, and how many of each gloss each part should have."""

    counts: Float[np.ndarray, "G K"]
    ideal: Float[np.ndarray, "3 K"]
    is_wanted: Bool[np.ndarray, " 3"]


def divide_groups(
    counts: Int64[np.ndarray, "G K"],
    names: Sequence[str],
    shares: tuple[float, float, float],
    seed: int,
) -> list[int]:
    """Choose a part for each group, so that every gloss is divided as the clips should be.

    The cost of a choice is how many clips, as a share of all, would have to change parts until
    every gloss had exactly its share in each; glosses that a part lacks cost extra. Few groups are
    tried in all ways; of many, groups change parts one at a time for as long as that helps, from
    several starts.

    Args:
        counts: clips of each group and gloss.
        names: of the groups; with the seed they decide among equals.
        shares: of train, val and test, adding up to 1.
        seed: another one finds another choice where there are several as good.

    Returns:
        The index among `PARTS` for each group.
    """
    order = sorted(
        range(len(names)),
        key=lambda group: (stable_seed(seed, "group", names[group]), names[group]),
    )
    ordered = counts[order].astype(np.float64)
    problem = _Problem(
        ordered,
        np.array(shares)[:, None] * ordered.sum(axis=0),
        np.array([share > 0 for share in shares]),
    )
    search = _try_all if len(names) <= _MOST_EXHAUSTIVE else _improve_from_starts
    chosen = search(problem)
    parts = [0] * len(names)
    for group, part in zip(order, chosen, strict=True):
        parts[group] = part
    return parts


def _costs(problem: _Problem, divided: Float[np.ndarray, "N 3 K"]) -> Float[np.ndarray, " N"]:
    """What each of several ways to divide costs, from the clips it gives each part and gloss."""
    away = np.abs(divided - problem.ideal).sum(axis=(1, 2)) / 2
    sizes = np.abs(divided.sum(axis=2) - problem.ideal.sum(axis=1)).sum(axis=1) / 2
    is_lacking = (divided == 0) & problem.is_wanted[:, None]
    lacking = is_lacking.mean(axis=2)  # N 3
    return (
        (away + sizes) / problem.ideal.sum()
        + _EMPTY_PART * (lacking == 1).sum(axis=1)
        + lacking @ np.array([_NEVER_TRAINED, _NEVER_VALIDATED, _NEVER_TESTED])
    )


def _divided(problem: _Problem, choices: Int64[np.ndarray, "N G"]) -> Float[np.ndarray, "N 3 K"]:
    """Clips of each part and gloss."""
    is_in = choices[:, None] == np.arange(len(PARTS))[:, None]  # N 3 G
    return is_in.astype(np.float64) @ problem.counts


def _try_all(problem: _Problem) -> list[int]:
    parts = np.flatnonzero(problem.is_wanted).tolist()
    choices = np.array(list(product(parts, repeat=len(problem.counts))))
    blocks = [
        _costs(problem, _divided(problem, choices[first : first + _BLOCK]))
        for first in range(0, len(choices), _BLOCK)
    ]
    # Groups come in a seeded order and the first minimum wins: among equals the seed decides.
    return choices[np.concatenate(blocks).argmin()].tolist()


def _improve_from_starts(problem: _Problem) -> list[int]:
    choices = np.array([_improved(problem, _dealt(problem, start)) for start in range(_STARTS)])
    return choices[_costs(problem, _divided(problem, choices)).argmin()].tolist()


def _dealt(problem: _Problem, start: int) -> list[int]:
    """Deal the groups, from one of them on, to the part that lacks most of what it should have."""
    sizes = problem.counts.sum(axis=1)
    lacking = problem.ideal.sum(axis=1)
    choice = [0] * len(sizes)
    first = start * len(sizes) // _STARTS
    for group in (np.arange(len(sizes)) + first) % len(sizes):
        choice[group] = int(lacking.argmax())
        lacking[choice[group]] -= sizes[group]
    return choice


def _improved(problem: _Problem, choice: list[int]) -> list[int]:
    """Move groups to other parts, one at a time, until no move helps."""
    choice = list(choice)
    divided = _divided(problem, np.array([choice]))[0]
    cost = float(_costs(problem, divided[None])[0])
    for _ in range(_SWEEPS):
        before = cost
        for group, clips in enumerate(problem.counts):
            for part in np.flatnonzero(problem.is_wanted).tolist():
                home = choice[group]
                if part == home:
                    continue
                divided[home] -= clips
                divided[part] += clips
                moved = float(_costs(problem, divided[None])[0])
                if moved < cost:
                    choice[group], cost = part, moved
                else:
                    divided[part] -= clips
                    divided[home] += clips
        if cost == before:
            break
    return choice


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
    split_of: dict[str, str] = {}
    for part, names in chosen.items():
        for name in names:
            if split_of.setdefault(name, part) != part:
                raise UsageError(
                    f"--{part}-{unit}s {name}: is in --{split_of[name]}-{unit}s too; a {unit} "
                    "belongs to one part"
                )
    known = groups_by(clips, unit)
    for name, part in split_of.items():
        if name not in known:
            raise DataError(
                f"--{part}-{unit}s {quote(name)}: no clip has this {unit}; "
                f"{nearest_of(name, known)}"
            )
    named = [clip for clip in clips if getattr(clip, unit) in split_of]
    others = [clip for clip in clips if getattr(clip, unit) not in split_of]
    return _marked(named, unit, split_of), others


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
    split_of: dict[str, str] = {}
    left = list(clips)
    for part, share in (("test", test_share), ("val", val_share / (1 - test_share))):
        if share > 0:
            chosen = choose_stratified(left, share, seed)
            split_of |= dict.fromkeys(chosen, part)
            left = [clip for clip in left if clip.clip_id not in chosen]
    return [replace(clip, split=split_of.get(clip.clip_id, "train")) for clip in clips]


def _marked(clips: Sequence[Clip], unit: Unit, split_of: Mapping[str, str]) -> list[Clip]:
    return [replace(clip, split=split_of[getattr(clip, unit)]) for clip in clips]
