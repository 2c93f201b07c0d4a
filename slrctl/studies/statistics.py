"""Statistics of variants against a baseline over paired seeds; see `docs/ablation.md`.

A sample is one number per seed, the same seeds in the same order for the baseline and for every
variant.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

from slrctl.core.seeding import stable_seed

Verdict = Literal["better", "worse", "no difference shown", "too few seeds"]
Interval = tuple[float, float]

LEVEL = 0.05
EXACT_UP_TO = 40
"""Most differences whose signs are all counted; above, a million patterns are drawn."""
_DIGITS = 12
BCA_FROM = 20
"""Fewest differences for a bias-corrected bootstrap interval; at 6 it covers 87 %."""


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds: mean, standard deviation (n - 1), Student-t 95 % interval.

    `sd` and `ci95` are None with a single seed.
    """

    n: int
    mean: float
    sd: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline over their common seeds.

    `difference` is variant minus baseline; `p` the exact two-sided sign-flip p-value, unadjusted;
    `p_holm` adjusted among the variants that are not the primary contrast, None for that one;
    `seeds_needed` the fewest seeds with which its verdict could be anything but "too few seeds";
    `probability_of_improvement` the share of seeds in which it is better, ties counting half.
    """

    n: int
    difference: float
    difference_sd: float | None
    difference_ci95: Interval | None
    difference_bca95: Interval | None
    p: float
    p_holm: float | None
    probability_of_improvement: float
    seeds_needed: int
    verdict: Verdict


def summarise(values: Float[np.ndarray, " S"]) -> Summary:
    """Summarise the values of one variant, of which there is at least one."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(len(values), float(np.mean(values)), sd, t_interval(values))


def t_interval(values: Float[np.ndarray, " S"]) -> Interval | None:
    """Return the Student-t 95 % interval of the mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(scipy.special.stdtrit(len(values) - 1, 1 - LEVEL / 2)) * error
    return mean - half, mean + half


def bca_interval(differences: Float[np.ndarray, " S"]) -> Interval | None:
    """Return the bias-corrected, accelerated bootstrap 95 % interval, None below 20 seeds."""
    if len(differences) < BCA_FROM or np.ptp(differences) == 0:
        return None
    result = scipy.stats.bootstrap(
        (differences,),
        np.mean,
        method="BCa",
        rng=np.random.default_rng(stable_seed(0, "bca", len(differences))),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def sign_flip_p(differences: Float[np.ndarray, " S"]) -> float:
    """Return the two-sided p-value of a mean difference of 0, from flipping signs.

    Exact: the share of all 2^n patterns of signs with a mean at least as far from 0. So it never
    falls below 2 / 2^n, which bounds what few seeds can show. Above 40 differences a million
    patterns are drawn, always the same.
    """
    count = len(differences)
    if count > EXACT_UP_TO:
        drawn = scipy.stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=999_999,
            batch=2**14,
            rng=np.random.default_rng(stable_seed(0, "sign flips", count)),
        )
        return float(drawn.pvalue)
    # Every pattern is one of the first half beside one of the second half.
    first, second = (_signed_sums(half) for half in np.array_split(differences, 2))
    second.sort()
    # Sums that are equal on paper differ in their last bits by the order of their terms.
    bound = abs(float(differences.sum())) - 1e-12 * float(np.abs(differences).sum())
    above = len(second) - np.searchsorted(second, bound - first, side="left")
    below = np.searchsorted(second, -bound - first, side="right")
    return min(1.0, float(above.sum() + below.sum()) / 2.0**count)


def _signed_sums(differences: Float[np.ndarray, " S"]) -> Float[np.ndarray, " N"]:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def seeds_needed(num_comparisons: int) -> int:
    """Return the fewest seeds with which one of m comparisons can come out below the level.

    The smallest sign-flip p is 2 / 2^n, so n must be at least log2(2 m / 0.05).
    """
    return math.ceil(math.log2(2 * num_comparisons / LEVEL))


def compare(
    baseline: Float[np.ndarray, " S"],
    variants: Mapping[str, Float[np.ndarray, " S"]],
    *,
    primary: str | None,
) -> dict[str, Comparison]:
    """Compare every variant with the baseline, seed by seed; NaN is a seed that has not finished.

    The primary contrast, declared beforehand, is tested unadjusted; the others are Holm-adjusted
    among themselves. How many seeds those need is counted as if the primary were one of them. A
    variant without a seed in common with the baseline is left out, but counts in the adjustment of
    the others, unless it is the primary: p-values are adjusted for the comparisons planned.
    """
    differences = {name: paired(values, baseline) for name, values in variants.items()}
    p_values = {name: sign_flip_p(d) if len(d) else 1.0 for name, d in differences.items()}
    others = [name for name in variants if name != primary]
    adjusted = dict(zip(others, holm([p_values[name] for name in others]), strict=True))
    found = {}
    for name, values in differences.items():
        if not len(values):
            continue
        mean, p = float(np.mean(values)), adjusted.get(name, p_values[name])
        needed = seeds_needed(1 if name == primary else len(variants))
        verdict: Verdict = "better" if mean > 0 else "worse"
        if len(values) < needed:
            verdict = "too few seeds"
        elif p >= LEVEL:
            verdict = "no difference shown"
        found[name] = Comparison(
            n=len(values),
            difference=mean,
            difference_sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            difference_ci95=t_interval(values),
            difference_bca95=bca_interval(values),
            p=p_values[name],
            p_holm=adjusted.get(name),
            probability_of_improvement=float(np.mean((values > 0) + 0.5 * (values == 0))),
            seeds_needed=needed,
            verdict=verdict,
        )
    return found


def paired(
    values: Float[np.ndarray, " S"], baseline: Float[np.ndarray, " S"]
) -> Float[np.ndarray, " D"]:
    """Return the differences of the seeds that both have finished.

    Rounded: means over folds in another order differ in their last bits, which is no difference.
    """
    differences = np.round(values - baseline, _DIGITS)
    return differences[~np.isnan(differences)]


POWER = 0.8
CAUTION = 0.8
"""A cautious plan takes this upper bound of the spread, which a pilot of few seeds knows badly."""
MOST_SEEDS = 10_000


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
    spread, freedom = float(np.std(pilot, ddof=1)), len(pilot) - 1
    cautious = spread * math.sqrt(freedom / float(scipy.stats.chi2.ppf(1 - CAUTION, freedom)))
    floor = seeds_needed(num_comparisons)
    counts = range(floor, MOST_SEEDS + 1)

    def fewest(spread: float) -> int | None:
        def power(count: int) -> float:
            return t_power(abs(difference), spread, count, LEVEL / num_comparisons)

        place = bisect_left(counts, POWER, key=power)
        return counts[place] if place < len(counts) else None

    return Plan(difference, spread, fewest(spread), fewest(cautious), floor)


def t_power(effect: float, spread: float, num_seeds: int, level: float = LEVEL) -> float:
    """Return the power of the two-sided paired t-test."""
    if spread == 0:
        return 1.0
    freedom, shift = num_seeds - 1, effect / spread * math.sqrt(num_seeds)
    critical = float(scipy.stats.t.ppf(1 - level / 2, freedom))
    beyond = scipy.stats.nct.sf(critical, freedom, shift)
    power = float(beyond + scipy.stats.nct.cdf(-critical, freedom, shift))
    # scipy gives up where the shift is so large that nothing is left below the critical value.
    return 1.0 if math.isnan(power) else power
