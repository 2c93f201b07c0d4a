"""Choose training clips to validate on: whole signers or sessions if that works, else at random.

Every choice follows from the seed and the clips' ids, not from their order in a file.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.seeding import stable_seed

# Up to this many signers (or sessions) every choice of them is looked at: 4,095 choices.
_MOST_GROUPS = 12
# What a choice costs, in held-out groups: one more of them weighs as much as missing the wanted
# size by a fifth (2 ** 0.25), or as an eighth of the glosses never being validated.
_SIZE_WEIGHT = 4.0
_GLOSS_WEIGHT = 8.0
# A best checkpoint chosen on less than this share of the glosses would say little about the rest.
_FEWEST_GLOSSES = 0.5


def choose_whole_groups(
    clips: Sequence[Clip], group_of: Callable[[Clip], str | None], share: float, seed: int
) -> list[str] | None:
    """Names of the groups to hold out, or None if no choice of whole groups will do.

    A choice will do if it has between half and twice `share` of the clips and half of the glosses,
    and what it leaves has every gloss. The cheapest one is taken: few groups, near the wanted
    size, many glosses. Clips without a group rule out a choice.
    """
    groups = [group_of(clip) for clip in clips]
    order = sorted(
        {group for group in groups if group is not None},
        key=lambda group: (stable_seed(seed, "held-out group", group), group),
    )
    if None in groups or len(order) < 2:
        return None
    glosses = {gloss: index for index, gloss in enumerate(sorted({clip.gloss for clip in clips}))}
    counts = np.zeros((len(order), len(glosses)), dtype=np.int64)
    for clip, group in zip(clips, groups, strict=True):
        counts[order.index(group or ""), glosses[clip.gloss]] += 1

    target = share * len(clips)
    is_exhaustive = len(order) <= _MOST_GROUPS
    choices = _all_choices(len(order)) if is_exhaustive else _filled_in_turn(counts, target)
    best = _cheapest(choices, counts, target)
    return None if best is None else sorted(order[index] for index in np.flatnonzero(best))


def _all_choices(num_groups: int) -> Bool[np.ndarray, "N G"]:
    numbers = np.arange(1, 2**num_groups)
    return (numbers[:, None] >> np.arange(num_groups)) % 2 == 1


def _filled_in_turn(counts: Int64[np.ndarray, "G K"], target: float) -> Bool[np.ndarray, "N G"]:
    """From each group on, take groups in turn until the wanted size is reached."""
    sizes = counts.sum(axis=1).tolist()
    choices = np.zeros((len(sizes), len(sizes)), dtype=bool)
    for start, choice in enumerate(choices):
        size = 0
        for index in (np.arange(len(sizes)) + start) % len(sizes):
            if size < target and size + sizes[index] <= 2 * target:
                choice[index] = True
                size += sizes[index]
    return choices


def _cheapest(
    choices: Bool[np.ndarray, "N G"], counts: Int64[np.ndarray, "G K"], target: float
) -> Bool[np.ndarray, " G"] | None:
    held_out = choices.astype(np.float64) @ counts  # exact, and faster than with integers
    sizes = held_out.sum(axis=1)
    is_fit = (sizes >= target / 2) & (sizes <= 2 * target)
    is_fit &= (held_out < counts.sum(axis=0)).all(axis=1)
    is_fit &= (held_out > 0).mean(axis=1) >= _FEWEST_GLOSSES
    if not is_fit.any():
        return None
    costs: Float[np.ndarray, " N"] = (
        choices.sum(axis=1)
        + _SIZE_WEIGHT * np.abs(np.log2(np.maximum(sizes, 1) / target))
        + _GLOSS_WEIGHT * (held_out == 0).mean(axis=1)
    )
    # Groups come in a seeded order and the first minimum wins: among equals the seed decides.
    return choices[np.argmin(np.where(is_fit, costs, np.inf))]


def choose_stratified(clips: Sequence[Clip], share: float, seed: int) -> set[str]:
    """Ids of clips to hold out: of each gloss its share, but never its last clip.

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
