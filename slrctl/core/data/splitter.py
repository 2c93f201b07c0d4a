"""Divide clips into train, val and test: by whole signers or sessions, or gloss by gloss."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError, UsageError, count_of, nearest_of, quote, some_of

SPLITS = ("train", "val", "test")
Unit = Literal["signer", "session"]
UNITS: tuple[Unit, ...] = ("signer", "session")

# Up to so many divisions are all compared: 8 groups among three splits, 12 among two.
_MOST_DIVISIONS = 3**8
_COMPARED_TOGETHER = 256
_STARTS, _SWEEPS = 4, 10
# The cost of a division is a share of the clips. A split without any clip rules a division out,
# and so does, next, a gloss that is never trained on.
_EMPTY_SPLIT = 1000.0
_NEVER_TRAINED, _NEVER_VALIDATED, _NEVER_TESTED = 10.0, 1.0, 1.5

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


def split_name(text: str | None) -> str | None:
    """Return train, val or test, however a file spells it; None for anything else."""
    return None if text is None else _SPELLINGS.get(text.strip().lower())


class _Goal(NamedTuple):
    """Clips by group and gloss, and the number of clips each split should have of each gloss."""

    counts: Float[np.ndarray, "G K"]
    ideal: Float[np.ndarray, "3 K"]
    is_wanted: Bool[np.ndarray, " 3"]
    group_cost: float

    def divided(self, divisions: Int64[np.ndarray, "N G"]) -> Float[np.ndarray, "N 3 K"]:
        """Count the clips that each division puts in each split, by gloss."""
        is_in = divisions[:, None] == np.arange(len(SPLITS))[:, None]  # N 3 G
        return is_in.astype(np.float64) @ self.counts

    def costs(
        self, divided: Float[np.ndarray, "N 3 K"], num_held_out: Int64[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        misplaced = np.abs(divided - self.ideal).sum(axis=(1, 2)) / 2
        sizes = np.abs(divided.sum(axis=2) - self.ideal.sum(axis=1)).sum(axis=1) / 2
        is_lacking = (divided == 0) & self.is_wanted[:, None]
        lacking = is_lacking.mean(axis=2)  # N 3
        return (
            (misplaced + sizes) / self.ideal.sum()
            + _EMPTY_SPLIT * (lacking == 1).sum(axis=1)
            + lacking @ np.array([_NEVER_TRAINED, _NEVER_VALIDATED, _NEVER_TESTED])
            + self.group_cost * num_held_out / len(self.counts)
        )

    def cheapest(self, divisions: Int64[np.ndarray, "N G"]) -> Int64[np.ndarray, " G"]:
        """Return the first division of least cost."""
        blocks = [
            self.costs(self.divided(block), (block != 0).sum(axis=1))
            for block in np.array_split(divisions, -(-len(divisions) // _COMPARED_TOGETHER))
        ]
        return divisions[np.concatenate(blocks).argmin()]


def divide_groups(
    counts: Int64[np.ndarray, "G K"],
    names: Sequence[str],
    shares: tuple[float, float, float],
    seed: int,
    *,
    group_cost: float = 0.0,
) -> list[int]:
    """Choose a split for each group, so that every gloss is divided as the clips should be.

    The cost of a division is the share of the clips that would have to change splits until every
    gloss had exactly its share in each, and the same for the sizes of the splits; glosses that a
    split lacks cost extra. Of few groups all divisions are compared; of many, groups change splits
    one at a time for as long as that helps, from several starts.

    Args:
        counts: clips of each group and gloss.
        names: of the groups; with the seed they decide among equals, the order does not.
        shares: of train, val and test, adding up to 1.
        seed: another one finds another division where there are several as good.
        group_cost: share of the clips that holding out all groups would cost, where few of them
            are to leave training.

    Returns:
        The index among `SPLITS` for each group.
    """
    order = sorted(
        range(len(names)),
        key=lambda group: (stable_seed(seed, "group", names[group]), names[group]),
    )
    ordered = counts[order].astype(np.float64)
    wanted = np.flatnonzero(shares)
    is_wanted = np.array(shares) > 0
    goal = _Goal(ordered, np.array(shares)[:, None] * ordered.sum(axis=0), is_wanted, group_cost)
    if len(wanted) ** len(names) <= _MOST_DIVISIONS:
        divisions = list(product(wanted.tolist(), repeat=len(names)))
    else:
        divisions = [_improved(goal, _dealt(goal, start)) for start in range(_STARTS)]
    chosen = np.empty(len(names), np.int64)
    chosen[order] = goal.cheapest(np.array(divisions))
    return chosen.tolist()


def _dealt(goal: _Goal, start: int) -> Int64[np.ndarray, " G"]:
    """Deal the groups, from one of them on, to the split that lacks most of its size."""
    sizes, lacking = goal.counts.sum(axis=1), goal.ideal.sum(axis=1)
    division = np.zeros(len(sizes), np.int64)
    first = start * len(sizes) // _STARTS
    for group in (np.arange(len(sizes)) + first) % len(sizes):
        division[group] = lacking.argmax()
        lacking[division[group]] -= sizes[group]
    return division


def _improved(goal: _Goal, division: Int64[np.ndarray, " G"]) -> Int64[np.ndarray, " G"]:
    """Move groups to other splits, one at a time, until no move helps."""
    divided = goal.divided(division[None])[0]
    is_target = np.eye(len(SPLITS))[goal.is_wanted]  # one row a split to move to
    targets = is_target.argmax(axis=1)
    cost = goal.costs(divided[None], (division != 0).sum(keepdims=True))[0]
    for _ in range(_SWEEPS):
        before = cost
        for group, clips in enumerate(goal.counts):
            without = divided.copy()
            without[division[group]] -= clips
            moved = without + is_target[:, :, None] * clips
            num_others = (division != 0).sum() - (division[group] != 0)
            costs = goal.costs(moved, num_others + (targets != 0))
            best = costs.argmin()
            if costs[best] < cost:
                division[group], divided, cost = targets[best], moved[best], costs[best]
        if cost == before:
            break
    return division


def divide_clips(
    clips: Sequence[Clip],
    unit: Unit,
    shares: tuple[float, float, float],
    seed: int,
    *,
    group_cost: float = 0.0,
) -> dict[str, str]:
    """Return the split of each signer or session, by `divide_groups`.

    Raises:
        DataError: clips without a signer or session, or fewer of them than splits.
    """
    groups = sorted(_groups_of(clips, unit))
    num_splits = sum(share > 0 for share in shares)
    if len(groups) < num_splits:
        raise DataError(
            f"found {count_of(len(groups), unit)} for {num_splits} splits; expected at least one "
            f"{unit} for each: divide by something else with --by, or set a share to 0"
        )
    rows = {group: row for row, group in enumerate(groups)}
    columns = {g: column for column, g in enumerate(ordered_classes(clip.gloss for clip in clips))}
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for clip in clips:
        counts[rows[getattr(clip, unit)], columns[clip.gloss]] += 1
    chosen = divide_groups(counts, groups, shares, seed, group_cost=group_cost)
    return dict(zip(groups, (SPLITS[index] for index in chosen), strict=True))


def _groups_of(clips: Sequence[Clip], unit: Unit) -> set[str]:
    unknown = [clip.clip_id for clip in clips if getattr(clip, unit) is None]
    if unknown:
        raise DataError(
            f"{count_of(len(unknown), 'clip')} of {len(clips):,} without a {unit}, the first is "
            f"{quote(unknown[0])}; expected one for every clip: fill in the {unit} column, or "
            "divide by something else"
        )
    return {getattr(clip, unit) for clip in clips}


def choose_stratified(clips: Sequence[Clip], share: float, seed: int) -> set[str]:
    """Return the ids of a share of the clips of each gloss, but never of its last clip.

    Fractions of a clip are carried from gloss to gloss, so that the whole has its share too.
    """
    by_gloss: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        by_gloss[clip.gloss].append(clip.clip_id)
    chosen: set[str] = set()
    wanted = 0.0
    for gloss in sorted(by_gloss, key=lambda gloss: (stable_seed(seed, "gloss", gloss), gloss)):
        clip_ids = by_gloss[gloss]
        clip_ids.sort(key=lambda clip_id: (stable_seed(seed, "held-out clip", clip_id), clip_id))
        wanted += share * len(clip_ids)
        # Nor does a gloss make up for others that have no clip to spare.
        most = min(ceil(share * len(clip_ids)), len(clip_ids) - 1)
        count = min(round(wanted) - len(chosen), most)
        chosen.update(clip_ids[: max(count, 0)])
    if not chosen:
        largest = max(by_gloss.values(), key=len)
        chosen.update(largest[: min(1, len(largest) - 1)])
    return chosen


def splits_of_named(
    clips: Sequence[Clip], unit: Unit, named: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the split of each signer or session that is named for one.

    Raises:
        UsageError: a name is given for two splits.
        DataError: no clip has a name, or some clips have none.
    """
    split_of: dict[str, str] = {}
    for split, names in named.items():
        for name in names:
            if split_of.setdefault(name, split) != split:
                raise UsageError(
                    f"--{split}-{unit}s {name}: is in --{split_of[name]}-{unit}s too; a {unit} "
                    "belongs to one split"
                )
    known = _groups_of(clips, unit) if split_of else ()
    for name, split in split_of.items():
        if name not in known:
            raise DataError(
                f"--{split}-{unit}s {quote(name)}: no clip has this {unit}; "
                f"{nearest_of(name, known)}"
            )
    return split_of


def split_clips(
    clips: Sequence[Clip],
    by: Unit | Literal["random"] | None,
    *,
    val_share: float,
    test_share: float,
    seed: int,
    unit: Unit = "signer",
    named: Mapping[str, Sequence[str]] | None = None,
) -> list[Clip]:
    """Set the split of every clip: of named signers or sessions first, the others by shares.

    Splits for which somebody is named get no share of the others.

    Args:
        clips: any; their splits are replaced.
        by: signer or session keeps the clips of one together; random divides them one by one;
            None trains on all that are not named.
        val_share: of the clips that are not named; 0 for none.
        test_share: the same.
        seed: decides among divisions that are as good.
        unit: `named` holds signers, or sessions.
        named: names for each split.

    Raises:
        UsageError: the shares leave nothing to train on, a name is given for two splits, or some
            clips are in no split.
        DataError: clips without a signer or session, an unknown name, or too few groups.
    """
    named = named or {}
    split_of = splits_of_named(clips, unit, named)
    others = [clip for clip in clips if getattr(clip, unit) not in split_of]
    val_share = 0.0 if "val" in named else val_share
    test_share = 0.0 if "test" in named else test_share
    if by is None and others and "train" in named:
        left = ", ".join(sorted({getattr(clip, unit) for clip in others}))
        raise UsageError(
            f"--train-{unit}s: {left} are in no split; name them too, divide them with --by, or "
            f"leave --train-{unit}s out, so that all others train"
        )
    if by is not None and val_share + test_share >= 1:
        raise UsageError(
            f"--val-share {val_share:g} and --test-share {test_share:g}: leave nothing to train "
            "on; their sum must be below 1"
        )
    if by is None or not others:
        rest = iter(["train"] * len(others))
    elif by == "random":
        by_id = _divide_at_random(others, val_share, test_share, seed)
        rest = iter([by_id.get(clip.clip_id, "train") for clip in others])
    else:
        by_group = divide_clips(
            others, by, (1 - val_share - test_share, val_share, test_share), seed
        )
        rest = iter([by_group[getattr(clip, by)] for clip in others])
    return [replace(clip, split=split_of.get(getattr(clip, unit)) or next(rest)) for clip in clips]


def _divide_at_random(
    clips: Sequence[Clip], val_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """Choose test clips of every gloss, and validation clips among the others."""
    split_of: dict[str, str] = {}
    left = clips
    for split, share in (("test", test_share), ("val", val_share / (1 - test_share))):
        if share > 0:
            split_of |= dict.fromkeys(choose_stratified(left, share, seed), split)
            left = [clip for clip in left if clip.clip_id not in split_of]
    return split_of


class SplitCounts(NamedTuple):
    """Contents of one split of a set."""

    clips: int
    glosses: tuple[str, ...]
    signers: tuple[str, ...]
    sessions: tuple[str, ...]
    lacking: tuple[str, ...]
    """Glosses that only other splits show."""


def count_splits(clips: Sequence[Clip]) -> dict[str, SplitCounts]:
    """Count the contents of each split that has clips."""
    glosses = ordered_classes(clip.gloss for clip in clips)
    counts = {}
    for split in SPLITS:
        members = [clip for clip in clips if clip.split == split]
        if members:
            shown = {clip.gloss for clip in members}
            counts[split] = SplitCounts(
                clips=len(members),
                glosses=tuple(gloss for gloss in glosses if gloss in shown),
                signers=ordered_classes(c.signer for c in members if c.signer is not None),
                sessions=ordered_classes(c.session for c in members if c.session is not None),
                lacking=tuple(gloss for gloss in glosses if gloss not in shown),
            )
    return counts


def split_warnings(counts: Mapping[str, SplitCounts], wanted: Mapping[str, float]) -> list[str]:
    """Warn of each split that lacks a gloss, or is far from its share if one was wanted."""
    notes = []
    total = sum(split.clips for split in counts.values())
    for name, split in counts.items():
        share = split.clips / total
        aim = wanted.get(name, share)
        if abs(share - aim) > max(0.3 * aim, 0.03):
            notes.append(
                f"warning: {name} has {100 * share:.0f} % of the clips where {100 * aim:.0f} "
                "% were wanted: no choice of whole groups comes nearer without other harm"
            )
        if split.lacking:
            harm = (
                "training would refuse the clips of them in other splits"
                if name == "train"
                else "its numbers say nothing about them"
            )
            notes.append(
                f"warning: {name} lacks {len(split.lacking)} of "
                f"{len(split.glosses) + len(split.lacking)} glosses "
                f"({some_of(list(split.lacking))}): {harm}"
            )
    return notes
