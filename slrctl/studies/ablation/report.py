"""What a study's finished trials say, in numbers and in one sentence a variant."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float

from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import METRICS, Trial, TrialResult
from slrctl.studies.statistics import (
    LEVEL,
    Comparison,
    Interval,
    Summary,
    compare,
    seeds_needed,
    sign_flip_p,
    summarise,
    t_interval,
)

METRIC = "accuracy"
"""What variants are compared by."""
NEAR_BEST = 0.9
"""A run has learned most once it reaches this share of its baseline's best validation accuracy."""


@dataclass(frozen=True)
class Learning:
    """How fast a variant learns, and what a step costs, against the baseline of the same seed.

    `epochs` is the mean number of epochs to 90 % of the baseline's best validation accuracy, one
    more than there were where it was never reached; `difference` and its interval are paired;
    `p` is unadjusted. `time_ratio` is the geometric mean of the training times' ratios.
    """

    epochs: float
    never_reached: int
    difference: float
    difference_ci95: Interval | None
    p: float
    time_ratio: float
    time_ratio_ci95: Interval | None


@dataclass(frozen=True)
class VariantReport:
    """One variant; `comparison` is None for the baseline and where no pair has finished.

    `failed` counts trials that ended in an error, `failures` holds what the first of each kind
    said.
    """

    name: str
    summary: Summary | None
    comparison: Comparison | None
    learning: Learning | None
    failed: int
    sentence: str
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyReport:
    """All variants of a study, the baseline first."""

    study: Study
    seeds: tuple[int, ...]
    folds: tuple[str, ...]
    part: str
    variants: tuple[VariantReport, ...]

    def to_json(self) -> dict[str, Any]:
        """The keys of `ablate --json` (SPEC, section 9), and what was learned how fast."""
        return {
            "study": self.study.name,
            "baseline": self.study.baseline,
            "primary": self.study.primary,
            "seeds": list(self.seeds),
            "folds": list(self.folds),
            "metric": METRIC,
            "part": self.part,
            "variants": {variant.name: _variant_json(variant) for variant in self.variants},
        }


def results_table(
    trials: Sequence[Trial], results: Mapping[str, TrialResult], failures: Mapping[str, str]
) -> pd.DataFrame:
    """A row a trial, in the study's order; all a report says follows from this table."""
    rows = []
    for trial in trials:
        row: dict[str, Any] = {
            "variant": trial.variant,
            "seed": trial.seed,
            "fold": trial.fold or "",
            "status": _status(trial, results, failures),
            "part": "",
            "trial": trial.key,
            "failure": failures.get(trial.key, ""),
        }
        result = results.get(trial.key)
        if result is not None:
            row |= {"part": result.part, "clips": result.clips, "best_epoch": result.best_epoch}
            row |= {name: result.metrics[name] for name in METRICS}
            row |= {"best_val_accuracy": max(result.curve), "train_seconds": result.seconds}
            row["val_accuracy_by_epoch"] = " ".join(f"{value:.12g}" for value in result.curve)
        rows.append(row)
    return pd.DataFrame(rows)


def report_study(study: Study, table: pd.DataFrame) -> StudyReport:
    """Summarise and compare the finished trials of a study.

    With folds, a seed's value is the mean over them, and counts once all folds have finished: the
    folds of one seed share most of their training clips and are not independent.

    Args:
        study: its variants, baseline and primary contrast.
        table: as `results_table` makes it.
    """
    runs = _finished_runs(table)
    seeds = tuple(dict.fromkeys(int(seed) for seed in table["seed"]))
    folds = tuple(dict.fromkeys(str(fold) for fold in table["fold"]))
    values = {
        name: _by_seed(seeds, folds, {pair: run[METRIC] for pair, run in runs[name].items()})
        for name in study.variants
    }
    baseline = values[study.baseline]
    paired = {name: v for name, v in values.items() if not np.isnan(v - baseline).all()}
    paired.pop(study.baseline, None)
    primary = study.primary if study.primary in paired else None
    declared = len(study.others)
    found = compare(baseline, paired, primary=primary, num_declared=declared) if paired else {}
    failures = _failures(table)
    lost = len(failures.get(study.baseline, []))
    variants = []
    for name in study.variants:
        known = values[name][~np.isnan(values[name])]
        summary = summarise(known) if len(known) else None
        comparison, failed = found.get(name), failures.get(name, [])
        variants.append(
            VariantReport(
                name,
                summary,
                comparison,
                _learning(runs[name], runs[study.baseline], seeds, folds),
                len(failed),
                sentence(study, name, summary, comparison)
                + _about_failures(len(failed), 0 if name == study.baseline else lost),
                tuple(dict.fromkeys(text for text in failed if text)),
            )
        )
    parts = {run["part"] for of_variant in runs.values() for run in of_variant.values()}
    named_folds = tuple(fold for fold in folds if fold)
    return StudyReport(study, seeds, named_folds, ", ".join(sorted(parts)), tuple(variants))


def paired_differences(study: Study, table: pd.DataFrame, name: str) -> Float[np.ndarray, " S"]:
    """A variant's accuracy minus the baseline's, for the seeds both have finished."""
    runs = _finished_runs(table)
    seeds = tuple(dict.fromkeys(int(seed) for seed in table["seed"]))
    folds = tuple(dict.fromkeys(str(fold) for fold in table["fold"]))
    variant, baseline = (
        _by_seed(seeds, folds, {pair: run[METRIC] for pair, run in runs[which].items()})
        for which in (name, study.baseline)
    )
    differences = variant - baseline
    return differences[~np.isnan(differences)]


def sentence(
    study: Study, name: str, summary: Summary | None, comparison: Comparison | None
) -> str:
    """The verdict on a variant in words that claim no more than the seeds allow."""
    if name == study.baseline:
        return "the baseline"
    if summary is None or comparison is None:
        return "nothing to say: no trial of it has finished beside one of the baseline"
    points = f"{100 * comparison.difference:+.2f} points"
    if comparison.difference_ci95 is not None:
        low, high = comparison.difference_ci95
        points += (
            f" (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"
            if low < high
            else " (in every seed, which is no certainty)"
        )
    is_primary = comparison.p_holm is None
    p = comparison.p if comparison.p_holm is None else comparison.p_holm
    tested = f"{'p' if is_primary else 'Holm-adjusted p'} = {p:.3g}, {comparison.n} seeds"
    if comparison.verdict == "too few seeds":
        return (
            f"too few seeds for a verdict: {comparison.n} of the {comparison.seeds_needed} asked "
            f"for; {points} over {study.baseline} so far"
        )
    if comparison.verdict == "no difference shown":
        return f"no difference to {study.baseline} shown: {points}, {tested}"
    return f"{comparison.verdict} than {study.baseline}: {points}, {tested}"


def _about_failures(num_failed: int, num_lost: int) -> str:
    """What a verdict rests on where trials failed, its own or the baseline's."""
    failed = [f"{num_failed} of its own"] if num_failed else []
    failed += [f"{num_lost} of the baseline's"] if num_lost else []
    return f" ({' and '.join(failed)} failed, and count for nothing)" if failed else ""


def _failures(table: pd.DataFrame) -> dict[str, list[str]]:
    """What the failed trials of each variant said."""
    failures: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        if row["status"] == "failed":
            failures.setdefault(str(row["variant"]), []).append(str(row.get("failure", "")))
    return failures


def _status(trial: Trial, results: Mapping[str, TrialResult], failures: Mapping[str, str]) -> str:
    if trial.key in results:
        return "done"
    return "failed" if trial.key in failures else "open"


_Pair = tuple[int, str]  # seed and fold


def _finished_runs(table: pd.DataFrame) -> dict[str, dict[_Pair, dict[str, Any]]]:
    """The rows of the finished trials, by variant, seed and fold."""
    runs: dict[str, dict[_Pair, dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        of_variant = runs.setdefault(str(row["variant"]), {})
        if row["status"] == "done":
            of_variant[int(row["seed"]), str(row["fold"])] = {str(k): v for k, v in row.items()}
    return runs


def _by_seed(
    seeds: Sequence[int], folds: Sequence[str], values: Mapping[_Pair, float]
) -> Float[np.ndarray, " S"]:
    """The mean over the folds of each seed; NaN where one has not finished."""
    rows = [[values.get((seed, fold), math.nan) for fold in folds] for seed in seeds]
    return np.array(rows, dtype=np.float64).mean(axis=1)


def _learning(
    runs: Mapping[_Pair, Mapping[str, Any]],
    baseline: Mapping[_Pair, Mapping[str, Any]],
    seeds: Sequence[int],
    folds: Sequence[str],
) -> Learning | None:
    common = [pair for pair in runs if pair in baseline]
    epochs = {pair: _epochs_to_90(runs[pair], baseline[pair]) for pair in common}
    own = {pair: _epochs_to_90(baseline[pair], baseline[pair]) for pair in common}
    ratios = {
        pair: math.log(runs[pair]["train_seconds"] / baseline[pair]["train_seconds"])
        for pair in common
    }
    counts, own_counts, logs = (_by_seed(seeds, folds, each) for each in (epochs, own, ratios))
    differences, logs = counts - own_counts, logs[~np.isnan(logs)]
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return None
    interval = t_interval(logs)
    return Learning(
        epochs=float(np.nanmean(counts)),
        never_reached=sum(epochs[pair] > len(_curve(runs[pair])) for pair in common),
        difference=float(differences.mean()),
        difference_ci95=t_interval(differences),
        p=sign_flip_p(differences),
        time_ratio=float(np.exp(logs.mean())),
        time_ratio_ci95=None
        if interval is None
        else (math.exp(interval[0]), math.exp(interval[1])),
    )


def _curve(run: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in str(run["val_accuracy_by_epoch"]).split()]


def _epochs_to_90(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> float:
    """Epochs to 90 % of the baseline's best; one more than there were where never reached."""
    target = NEAR_BEST * max(_curve(baseline))
    reached = [value >= target - 1e-9 for value in _curve(run)]
    return float(reached.index(True) + 1 if True in reached else len(reached) + 1)


def _variant_json(variant: VariantReport) -> dict[str, Any]:
    summary = variant.summary
    comparison = variant.comparison
    compared = asdict(comparison) if comparison is not None else {}
    names = (
        "difference",
        "difference_sd",
        "difference_ci95",
        "difference_bca95",
        "p",
        "p_holm",
        "probability_of_improvement",
        "seeds_needed",
    )
    is_baseline = variant.sentence == "the baseline"
    missing = "baseline" if is_baseline else "too few seeds"
    return {
        "n": summary.n if summary else 0,
        "mean": summary.mean if summary else None,
        "sd": summary.sd if summary else None,
        "ci95": summary.ci95 if summary else None,
        **{name: compared.get(name) for name in names},
        "verdict": compared.get("verdict", missing),
        "sentence": variant.sentence,
        "failed": variant.failed,
        "learning": asdict(variant.learning) if variant.learning else None,
    }


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
