"""How many seeds a study needs to see a difference, from a pilot."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float

from slrctl.studies.ablation.report import StudyReport, paired_differences
from slrctl.studies.statistics import LEVEL, seeds_needed

POWER = 0.8
MOST_SEEDS = 10_000
# A pilot of few seeds knows the spread badly; a cautious plan takes this upper bound of it.
CAUTION = 0.8


class Plan(NamedTuple):
    """Seeds needed to see a difference with a power of 80 %.

    `seeds` takes the pilot's spread as it is, `cautious_seeds` the upper 80 % bound of it; both
    are at least the `floor` below which no p-value can be small enough. None is more than 10,000.
    """

    difference: float
    spread: float
    seeds: int | None
    cautious_seeds: int | None
    floor: int


def plan_seeds(
    pilot: Float[np.ndarray, " S"], difference: float, *, num_comparisons: int = 1
) -> Plan:
    """Plan the number of paired seeds.

    The power is that of the paired t-test, which the sign-flip test matches closely; with several
    comparisons the level is divided by their number, as Holm's first step does.

    Args:
        pilot: paired differences, variant minus baseline, of a few seeds.
        difference: the true difference that should be seen, in the unit of the pilot.
        num_comparisons: how many comparisons are adjusted together.

    Raises:
        ValueError: fewer than two differences, or a difference of 0.
    """
    if len(pilot) < 2:
        raise ValueError(f"a pilot of {len(pilot)} seeds has no spread; it needs at least 2")
    if not difference:
        raise ValueError("no number of seeds shows a difference of 0; give another one")
    spread = float(np.std(pilot, ddof=1))
    freedom = len(pilot) - 1
    cautious = spread * math.sqrt(freedom / float(scipy.stats.chi2.ppf(1 - CAUTION, freedom)))
    level, floor = LEVEL / num_comparisons, seeds_needed(num_comparisons)
    effect = abs(difference)
    return Plan(
        difference,
        spread,
        _fewest_seeds(effect, spread, level, floor),
        _fewest_seeds(effect, cautious, level, floor),
        floor,
    )


def t_power(effect: float, spread: float, num_seeds: int, level: float = LEVEL) -> float:
    """Power of the two-sided paired t-test."""
    if spread == 0:
        return 1.0
    freedom, shift = num_seeds - 1, effect / spread * math.sqrt(num_seeds)
    critical = float(scipy.stats.t.ppf(1 - level / 2, freedom))
    beyond = scipy.stats.nct.sf(critical, freedom, shift)
    power = float(beyond + scipy.stats.nct.cdf(-critical, freedom, shift))
    # scipy gives up where the shift is so large that nothing is left below the critical value.
    return 1.0 if math.isnan(power) else power


def _fewest_seeds(effect: float, spread: float, level: float, floor: int) -> int | None:
    """By doubling and then bisection, since power grows with the seeds."""
    low = high = max(floor, 2)
    while t_power(effect, spread, high, level) < POWER:
        low, high = high + 1, 2 * high
        if high > MOST_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        if t_power(effect, spread, middle, level) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def plan_study(report: StudyReport, table: pd.DataFrame, difference: float) -> dict[str, Plan]:
    """Plan every variant of a study from its own finished seeds.

    Those with too few, or with equal differences in all, show no spread and are left out.

    Args:
        report: the pilot.
        table: its trials, as `results_table` makes it.
        difference: the true difference in accuracy that should be seen.
    """
    plans = {}
    for variant in report.variants[1:]:
        pilot = paired_differences(report.study, table, variant.name)
        if len(pilot) >= 2 and np.ptp(pilot) > 0:
            is_primary = variant.name == report.study.primary
            count = 1 if is_primary else len(report.study.others)
            plans[variant.name] = plan_seeds(pilot, difference, num_comparisons=count)
    return plans
