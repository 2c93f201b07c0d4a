"""Dividing groups into splits, against every other way to divide them."""

from itertools import product

import numpy as np
import pytest

from slrctl.core.data.splitter import divide_groups

SHARES = (0.7, 0.15, 0.15)


def cost(counts: np.ndarray, choice, shares, group_cost: float = 0.0) -> float:
    """The cost of a division, in plain loops."""
    groups, glosses = counts.shape
    total = counts.sum()
    misplaced = sizes = 0.0
    lacking = [0, 0, 0]
    penalty = group_cost * sum(split != 0 for split in choice) / groups
    for split, share in enumerate(shares):
        size = sum(counts[group].sum() for group in range(groups) if choice[group] == split)
        sizes += abs(size - share * total) / 2
        for gloss in range(glosses):
            here = sum(counts[group, gloss] for group in range(groups) if choice[group] == split)
            misplaced += abs(here - share * counts[:, gloss].sum()) / 2
            lacking[split] += here == 0 and share > 0
        penalty += 1000.0 * (size == 0 and share > 0)
    weights = (10.0, 1.0, 1.5)
    penalty += sum(weights[split] * lacking[split] / glosses for split in range(3))
    return (misplaced + sizes) / total + penalty


def random_counts(seed: int, most_groups: int) -> np.ndarray:
    """Clips of each group and gloss, some of them 0, but at least one a group and a gloss."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10, (rng.integers(3, most_groups + 1), rng.integers(1, 5)))
    counts *= rng.random(counts.shape) < 0.8
    counts[:, 0] += 1
    return counts[:, counts.sum(axis=0) > 0]


def names_of(counts: np.ndarray) -> list[str]:
    return [f"signer{number}" for number in range(len(counts))]


@pytest.mark.parametrize("group_cost", [0.0, 0.3])
@pytest.mark.parametrize("shares", [SHARES, (0.8, 0.2, 0.0), (0.5, 0.0, 0.5)])
@pytest.mark.parametrize("seed", range(8))
def test_no_other_way_to_divide_few_groups_costs_less(seed, shares, group_cost):
    counts = random_counts(seed, most_groups=5)

    chosen = divide_groups(counts, names_of(counts), shares, seed, group_cost=group_cost)

    wanted = [split for split in range(3) if shares[split] > 0]
    divisions = product(wanted, repeat=len(counts))
    best = min(cost(counts, division, shares, group_cost) for division in divisions)
    assert cost(counts, chosen, shares, group_cost) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(15))
def test_every_split_gets_a_group_and_no_single_move_helps(seed):
    counts = random_counts(seed, most_groups=16)

    chosen = divide_groups(counts, names_of(counts), SHARES, seed)

    assert set(chosen) == {0, 1, 2}
    now = cost(counts, chosen, SHARES)
    moves = (
        [split if index == group else other for index, other in enumerate(chosen)]
        for group, split in product(range(len(counts)), range(3))
    )
    assert min(cost(counts, moved, SHARES) for moved in moves) >= now - 1e-9


@pytest.mark.parametrize("num_groups", [6, 20])
def test_the_choice_follows_the_names_and_not_their_order(num_groups):
    counts = np.random.default_rng(0).integers(0, 9, (num_groups, 5))
    names = names_of(counts)
    order = np.random.default_rng(1).permutation(num_groups)

    chosen = divide_groups(counts, names, SHARES, 0)
    shuffled = divide_groups(counts[order], [names[index] for index in order], SHARES, 0)

    assert [chosen[index] for index in order] == shuffled


def test_of_equal_groups_the_seed_decides():
    counts = np.full((7, 3), 4)

    choices = {tuple(divide_groups(counts, names_of(counts), SHARES, seed)) for seed in range(8)}

    assert len(choices) > 3


@pytest.mark.parametrize("seed", range(5))
def test_a_gloss_that_one_group_shows_is_trained_on(seed):
    counts = np.full((8, 3), 10)
    counts[:, 2] = 0
    counts[5, 2] = 10

    assert divide_groups(counts, names_of(counts), SHARES, seed)[5] == 0


def test_many_even_groups_are_divided_as_the_shares_say():
    counts = np.full((100, 20), 2)

    chosen = divide_groups(counts, names_of(counts), SHARES, 0)

    assert np.bincount(chosen).tolist() == [70, 15, 15]
