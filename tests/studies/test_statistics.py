"""The statistics of a study against worked answers, plain loops and simulations."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from slrctl.studies.statistics import (
    Summary,
    bca_interval,
    compare,
    holm,
    plan_seeds,
    seeds_needed,
    sign_flip_p,
    summarise,
    t_interval,
    t_power,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def plain_sign_flip_p(differences) -> float:
    """Flip every sign in every way, one pattern at a time."""
    observed = abs(math.fsum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    as_far = [
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-12
        for signs in patterns
    ]
    return sum(as_far) / len(patterns)


@pytest.mark.parametrize(
    "differences",
    [
        [0.3],
        [0.3, -0.1],
        [0.4, 1.3, -0.2, 0.9, 0.05],
        np.random.default_rng(7).normal(0.4, 1, 9),
        # Differences of accuracies over 300 clips: many sums are equal but for their last bits.
        np.array([7, -2, 3, 0, 4, -1, 5, 2, -3]) / 300,
        np.zeros(9),
        np.arange(1.0, 10.0),  # of one sign: the floor, 2 / 2^9
    ],
)
def test_sign_flips_equal_a_plain_loop(differences):
    assert sign_flip_p(np.asarray(differences)) == plain_sign_flip_p(differences)


def test_many_differences_are_drawn_and_agree_with_the_t_test(generator):
    differences = generator.normal(0, 1, 50)
    differences += 0.3 - differences.mean()

    _, expected = scipy.stats.ttest_1samp(differences, 0)
    assert sign_flip_p(differences) == pytest.approx(expected, rel=0.1)


def test_the_interval_is_students_and_one_seed_has_none():
    summary = summarise(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))

    # Worked by hand: t(4) = 2.776, standard error sqrt(2.5 / 5).
    half = 2.776 * math.sqrt(0.5)
    assert (summary.mean, summary.sd) == pytest.approx((3, math.sqrt(2.5)))
    assert summary.ci95 == pytest.approx((3 - half, 3 + half), 1e-3)
    assert summarise(np.array([0.7])) == Summary(1, 0.7, None, None)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        # 0.01 x 4, 0.02 x 3, 0.03 x 2; 0.04 x 1 may not fall below the one before.
        ([0.04, 0.01, 0.03, 0.02], [0.06, 0.04, 0.06, 0.06]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm_equals_worked_examples(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (7, 9), (8, 9)])
def test_six_seeds_serve_one_comparison_and_nine_serve_seven(comparisons, seeds):
    assert seeds_needed(comparisons) == seeds
    assert 2 / 2**seeds * comparisons <= 0.05 < 2 / 2 ** (seeds - 1) * comparisons


def test_the_bootstrap_interval_comes_from_twenty_seeds_up(generator):
    differences = generator.normal(1, 1, 20)

    interval = bca_interval(differences)

    assert bca_interval(differences[:19]) is None
    assert interval == bca_interval(differences)
    assert interval is not None
    assert interval[0] < differences.mean() < interval[1]


def study(generator, shifts, num_seeds, spread=0.01):
    """Draw paired samples: the part of a seed is common to all variants."""
    common = generator.normal(0.9, 0.03, num_seeds)
    baseline = common + generator.normal(0, spread, num_seeds)
    return baseline, {
        name: common + shift + generator.normal(0, spread, num_seeds)
        for name, shift in shifts.items()
    }


def test_a_planted_effect_is_found_and_named(generator):
    shifts = {"full": 0.05, "worse": -0.05, **{f"same{i}": 0.0 for i in range(5)}}

    found = compare(*study(generator, shifts, 9), primary="full")

    assert {name: one.verdict for name, one in found.items()} == {
        "full": "better", "worse": "worse", **{f"same{i}": "no difference shown" for i in range(5)},
    }  # fmt: skip
    assert found["full"].p_holm is None
    assert found["full"].difference == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("num_seeds", "verdicts"), [(5, (0, 0)), (6, (1, 0)), (9, (1, 1))])
def test_six_seeds_settle_the_primary_contrast_and_nine_the_others(generator, num_seeds, verdicts):
    shifts = {"full": 0.5, **{f"other{i}": 0.5 for i in range(6)}}

    found = compare(*study(generator, shifts, num_seeds), primary="full")

    assert tuple(int(found[name].verdict == "better") for name in ("full", "other0")) == verdicts
    assert (found["full"].seeds_needed, found["other0"].seeds_needed) == (6, 9)


def test_a_seed_that_has_not_finished_is_left_out_of_its_pair_and_a_tie_counts_half():
    values = np.array([0.1, 0.0, math.nan, -0.1, 0.2])

    found = compare(np.zeros(5), {"full": values, "other": values}, primary="full")

    kept = values[[0, 1, 3, 4]]
    full = found["full"]
    assert (full.n, full.difference) == (4, pytest.approx(0.05))
    assert full.probability_of_improvement == 0.625
    assert full.difference_ci95 == pytest.approx(t_interval(kept))
    # The primary contrast is what it would be alone.
    assert compare(np.zeros(5), {"full": values}, primary="full")["full"] == full


@pytest.mark.parametrize("gone", ["bc", "abc"])
def test_p_values_are_adjusted_for_the_comparisons_planned_and_never_for_the_primary(
    generator, gone
):
    baseline, variants = study(generator, {name: 0.5 for name in "abcd"}, 9)

    whole = compare(baseline, variants, primary="a")
    without = compare(baseline, variants | dict.fromkeys(gone, np.full(9, np.nan)), primary="a")

    assert set(without) == set("abcd") - set(gone)
    assert without["d"].p_holm == pytest.approx(3 * 2 / 2**9)
    assert without["d"] == whole["d"]


def pilot(spread: float, count: int = 5) -> np.ndarray:
    """Return differences with exactly this standard deviation."""
    values = np.random.default_rng(1).normal(size=count)
    return values / values.std(ddof=1) * spread


def test_the_power_of_the_paired_t_test_is_cohens():
    # Cohen's tables: effect 0.5, 34 pairs, two-sided 5 %: power 0.80.
    assert t_power(0.5, 1.0, 34) == pytest.approx(0.808, abs=0.002)
    assert t_power(0.5, 1.0, 33) < 0.8
    assert t_power(0.0, 1.0, 34) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("spread", "difference", "num_comparisons", "seeds"),
    # The floor of seeds for a huge effect; none for an effect too small for 10,000 seeds.
    [(1.0, 0.5, 1, 34), (1e-9, 0.5, 1, 6), (0.01, 0.5, 7, 9), (1.0, 1e-4, 1, None)],
)
def test_the_plan_is_the_first_number_with_enough_power(spread, difference, num_comparisons, seeds):
    assert plan_seeds(pilot(spread), difference, num_comparisons=num_comparisons).seeds == seeds


def test_a_small_pilot_is_planned_for_with_caution():
    few, many = (plan_seeds(pilot(1.0, count), 0.5).cautious_seeds or 0 for count in (3, 60))

    assert few > many > 34


@pytest.mark.parametrize(("differences", "target"), [([0.1], 0.5), ([0.1, 0.2], 0.0)])
def test_a_pilot_without_spread_or_a_difference_of_zero_is_refused(differences, target):
    with pytest.raises(ValueError, match=r"needs at least 2|give another one"):
        plan_seeds(np.array(differences), target)


DRAWS = {
    "normal": lambda generator, shape: generator.normal(0, 1, shape),
    # Skewed as accuracies near their ceiling are: skewness -0.7.
    "skewed": lambda generator, shape: 8 - generator.gamma(8.0, 1.0, shape),
    "difference of skewed": lambda generator, shape: np.diff(
        generator.gamma(8.0, 1.0, (2, *np.atleast_1d(shape))), axis=0
    )[0],
}
each_kind = pytest.mark.parametrize("kind", DRAWS)


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("num_seeds", [6, 9, 20])
def test_a_null_effect_is_called_one_in_at_most_6_of_100_studies(generator, kind, num_seeds):
    differences = DRAWS[kind](generator, (4000, num_seeds))

    assert np.mean([sign_flip_p(row) < 0.05 for row in differences]) <= 0.06


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("num_seeds", [6, 9, 20])
def test_intervals_cover_the_truth_in_93_to_97_of_100_studies(generator, kind, num_seeds):
    values = DRAWS[kind](generator, (10_000, num_seeds))

    intervals = np.array([t_interval(row) for row in values])

    covered = np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0))
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
@each_kind
def test_holm_keeps_the_chance_of_any_false_verdict_below_6_of_100(generator, kind):
    draw, any_called, repeats = DRAWS[kind], 0, 1500
    for _ in range(repeats):
        others = {f"v{i}": draw(generator, 9) for i in range(6)}
        found = compare(draw(generator, 9), others, primary=None)
        any_called += any(c.verdict in ("better", "worse") for c in found.values())

    assert any_called / repeats <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1.2, 0.8])
def test_studies_of_the_planned_size_find_the_effect_in_80_of_100(effect):
    seeds = plan_seeds(pilot(1.0), effect).seeds
    assert seeds is not None
    generator = np.random.default_rng(3)

    found = [sign_flip_p(generator.normal(effect, 1.0, seeds)) < 0.05 for _ in range(2000)]

    assert 0.75 <= np.mean(found) <= 0.88
