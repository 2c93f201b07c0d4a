"""Plans against known tables and simulated studies."""

import numpy as np
import pytest

from slrctl.studies.statistics import plan_seeds, sign_flip_p, t_power


def pilot(spread: float, count: int = 5) -> np.ndarray:
    """Differences with exactly this standard deviation."""
    values = np.random.default_rng(1).normal(size=count)
    return values / values.std(ddof=1) * spread


def test_the_power_of_the_paired_t_test_is_cohens():
    # Cohen's tables: effect 0.5, 34 pairs, two-sided 5 %: power 0.80.
    assert t_power(0.5, 1.0, 34) == pytest.approx(0.808, abs=0.002)
    assert t_power(0.0, 1.0, 34) == pytest.approx(0.05)


def test_the_plan_is_the_first_number_with_enough_power():
    plan = plan_seeds(pilot(1.0), 0.5)

    assert plan.seeds == 34
    assert t_power(0.5, 1.0, 33) < 0.8 <= t_power(0.5, 1.0, 34)


def test_a_small_pilot_is_planned_for_with_caution():
    few, many = plan_seeds(pilot(1.0, 3), 0.5), plan_seeds(pilot(1.0, 60), 0.5)

    assert few.seeds == many.seeds == 34
    assert few.cautious_seeds is not None
    assert many.cautious_seeds is not None
    assert few.cautious_seeds > many.cautious_seeds > 34


def test_a_huge_effect_still_needs_the_floor():
    assert plan_seeds(pilot(1e-9), 0.5).seeds == 6
    assert plan_seeds(pilot(0.01), 0.5, num_comparisons=7).seeds == 9


def test_an_effect_too_small_for_any_number_of_seeds_has_no_plan():
    assert plan_seeds(pilot(1.0), 1e-4).seeds is None


@pytest.mark.parametrize(("differences", "target"), [([0.1], 0.5), ([0.1, 0.2], 0.0)])
def test_a_pilot_without_spread_or_a_difference_of_zero_is_refused(differences, target):
    with pytest.raises(ValueError, match=r"needs at least 2|give another one"):
        plan_seeds(np.array(differences), target)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1.2, 0.8])
def test_studies_of_the_planned_size_find_the_effect_in_80_of_100(effect):
    plan = plan_seeds(pilot(1.0), effect)
    assert plan.seeds is not None
    generator = np.random.default_rng(3)

    found = [sign_flip_p(generator.normal(effect, 1.0, plan.seeds)) < 0.05 for _ in range(2000)]

    assert 0.75 <= np.mean(found) <= 0.88
