"""Compare variants with a baseline over paired seeds, and say no more than the seeds allow.

All of it is SPEC section 8. A sample is one number per seed, the same seeds in the same order for
the baseline and for every variant.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
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
    `seeds_needed` the fewest seeds with which its verdict could be anything but "too few seeds".
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
    """Describe one variant.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("a variant without a finished seed has no mean")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(len(values), float(np.mean(values)), sd, t_interval(values))


def t_interval(values: Float[np.ndarray, " S"]) -> Interval | None:
    """Student-t 95 % interval of the mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(scipy.stats.sem(values))
    half = float(scipy.stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * error
    return mean - half, mean + half


def bca_interval(differences: Float[np.ndarray, " S"]) -> Interval | None:
    """Bias-corrected, accelerated bootstrap 95 % interval of the mean, from 20 seeds up."""
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
    """Two-sided p of a mean difference of 0, from flipping the signs of the differences.

    Exact: the share of all 2^n patterns of signs with a mean at least as far from 0. So it never
    falls below 2 / 2^n, which bounds what few seeds can show. Above 40 differences a million
    patterns are drawn, always the same.
    """
    if len(differences) > EXACT_UP_TO:
        return _drawn_sign_flip_p(differences)
    half = len(differences) // 2
    first, second = _signed_sums(differences[:half]), np.sort(_signed_sums(differences[half:]))
    # Sums that are equal on paper differ in their last bits by the order of their terms.
    rounding = 1e-12 * float(np.abs(differences).sum())
    bound = abs(float(differences.sum())) - rounding
    above = len(second) - np.searchsorted(second, bound - first, side="left")
    below = np.searchsorted(second, -bound - first, side="right")
    return min(1.0, float(above.sum() + below.sum()) / 2.0 ** len(differences))


def _signed_sums(differences: Float[np.ndarray, " S"]) -> Float[np.ndarray, " N"]:
    """The sums under all 2^n patterns of signs."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def _drawn_sign_flip_p(differences: Float[np.ndarray, " S"]) -> float:
    result = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=999_999,
        batch=2**14,
        rng=np.random.default_rng(stable_seed(0, "sign flips", len(differences))),
    )
    return float(result.pvalue)


def probability_of_improvement(differences: Float[np.ndarray, " S"]) -> float:
    """How often the variant beats the baseline of its seed; a tie counts half."""
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def seeds_needed(num_comparisons: int) -> int:
    """Fewest seeds with which one of m comparisons can come out below the level.

    The smallest sign-flip p is 2 / 2^n, so n must be at least log2(2 m / 0.05).
    """
    return math.ceil(math.log2(2 * num_comparisons / LEVEL))


def compare(
    baseline: Float[np.ndarray, " S"],
    variants: Mapping[str, Float[np.ndarray, " S"]],
    *,
    primary: str | None,
    num_declared: int | None = None,
) -> dict[str, Comparison]:
    """Compare every variant with the baseline, seed by seed.

    The primary contrast is tested unadjusted; the others are Holm-adjusted among themselves. How
    many seeds those need is counted as if the primary were one of them.

    Args:
        baseline: a value per seed.
        variants: for each variant a value per seed, NaN where that seed has not finished; such a
            seed is left out of that comparison.
        primary: the variant of the contrast declared beforehand; None if there is none.
        num_declared: how many variants were to be compared, where some gave nothing: p-values are
            adjusted for the comparisons that were planned, not for those that came about.

    Raises:
        ValueError: the primary is not among the variants, or a variant has no seed in common with
            the baseline.
    """
    if primary is not None and primary not in variants:
        raise ValueError(f"primary {primary!r} is not among the variants {list(variants)}")
    differences = {}
    for name, values in variants.items():
        # Means over folds in another order differ in their last bits, which is no difference.
        paired = np.round(np.asarray(values) - np.asarray(baseline), _DIGITS)
        differences[name] = paired[~np.isnan(paired)]
        if not len(differences[name]):
            raise ValueError(f"variant {name!r} has no finished seed in common with the baseline")
    p_values = {name: sign_flip_p(paired) for name, paired in differences.items()}
    others = [name for name in variants if name != primary]
    num_declared = len(variants) if num_declared is None else num_declared
    of_absent = [1.0] * (num_declared - len(variants))
    of_others = holm([*(p_values[name] for name in others), *of_absent])
    adjusted = dict(zip(others, of_others, strict=False))
    return {
        name: _comparison(
            differences[name],
            p_values[name],
            adjusted.get(name),
            seeds_needed(1 if name == primary else num_declared),
        )
        for name in variants
    }


def _comparison(
    differences: Float[np.ndarray, " S"], p: float, p_holm: float | None, needed: int
) -> Comparison:
    mean = float(np.mean(differences))
    return Comparison(
        n=len(differences),
        difference=mean,
        difference_sd=float(np.std(differences, ddof=1)) if len(differences) > 1 else None,
        difference_ci95=t_interval(differences),
        difference_bca95=bca_interval(differences),
        p=p,
        p_holm=p_holm,
        probability_of_improvement=probability_of_improvement(differences),
        seeds_needed=needed,
        verdict=_verdict(mean, p if p_holm is None else p_holm, len(differences), needed),
    )


def _verdict(difference: float, p: float, num_seeds: int, needed: int) -> Verdict:
    if num_seeds < needed:
        return "too few seeds"
    if p >= LEVEL:
        return "no difference shown"
    return "better" if difference > 0 else "worse"
