"""Divide clips into train, val and test: by people or sessions kept whole, or clip by clip.

Every choice follows from the seed, the names and the clips' ids, not from their order in a file.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.seeding import stable_seed

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
