"""Reports of a study: numbers, and one sentence a variant, from its finished trials."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import METRICS, Trial, TrialResult
from slrctl.studies.statistics import (
    Comparison,
    Interval,
    Plan,
    Summary,
    compare,
    paired,
    plan_seeds,
    sign_flip_p,
    summarise,
    t_interval,
)

METRIC = "accuracy"
"""Variants are compared by this metric."""
NEAR_BEST = 0.9
"""A run has learned most once it reaches this share of its baseline's best validation accuracy."""
_COLUMNS = (
    *("variant", "seed", "fold", "status", "part", "trial", "failure", "clips", "best_epoch"),
    *METRICS,
    *("best_val_accuracy", "train_seconds", "val_accuracy_by_epoch"),
)


@dataclass(frozen=True)
class Learning:
    """Speed of learning and cost of a step, against the baseline of the same seed.

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

    `failed` counts trials that ended in an error, `failures` holds their different messages.
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
    """All variants of a study, the baseline first.

    `split` is that of the accuracies: test, or validation where there are no test clips.
    """

    study: Study
    seeds: tuple[int, ...]
    folds: tuple[str, ...]
    split: str
    variants: tuple[VariantReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `ablate --json` prints."""
        return {
            "study": self.study.name,
            "baseline": self.study.baseline,
            "primary": self.study.primary,
            "seeds": list(self.seeds),
            "folds": list(self.folds),
            "metric": METRIC,
            "part": self.split,
            "variants": {one.name: self._variant_json(one) for one in self.variants},
        }

    def _variant_json(self, variant: VariantReport) -> dict[str, Any]:
        numbers = dict.fromkeys([*Summary.__dataclass_fields__, *Comparison.__dataclass_fields__])
        is_baseline = variant.name == self.study.baseline
        numbers |= {"n": 0, "verdict": "baseline" if is_baseline else "too few seeds"}
        for found in (variant.comparison, variant.summary):  # both have `n`: the summary's counts
            numbers |= asdict(found) if found else {}
        return numbers | {
            "sentence": variant.sentence,
            "failed": variant.failed,
            "learning": asdict(variant.learning) if variant.learning else None,
        }


def results_table(
    trials: Sequence[Trial], results: Mapping[str, TrialResult], failures: Mapping[str, str]
) -> pd.DataFrame:
    """Build the table that a report follows from: a row a trial, in the study's order.

    Results and messages of failures are by the keys of trials.
    """
    rows = []
    for trial in trials:
        row: dict[str, Any] = {
            "variant": trial.variant,
            "seed": trial.seed,
            "fold": trial.fold or "",
            "status": "failed" if trial.key in failures else "open",
            "part": "",
            "trial": trial.key,
            "failure": failures.get(trial.key, ""),
        }
        if (result := results.get(trial.key)) is not None:
            row |= {"status": "done", "part": result.split, "clips": result.clips}
            row |= {"best_epoch": result.best_epoch, **result.metrics}
            row |= {"best_val_accuracy": max(result.curve), "train_seconds": result.seconds}
            row["val_accuracy_by_epoch"] = " ".join(f"{value:.12g}" for value in result.curve)
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def report_study(study: Study, table: pd.DataFrame) -> StudyReport:
    """Summarise and compare the finished trials in a table.

    With folds, a seed's value is the mean over them, and counts once all folds have finished: the
    folds of one seed share most of their training clips and are not independent.
    """
    rows = _rows(table)
    values = _per_seed(rows, [row[METRIC] for row in rows])
    baseline = values[study.baseline]
    others = {name: values[name] for name in study.others}
    comparisons = compare(baseline, others, primary=study.primary)
    learning = _learning(study, rows)
    failures: dict[str, list[str]] = {name: [] for name in study.variants}
    for row in rows:
        if row["status"] == "failed":
            failures[row["variant"]].append(row["failure"])
    variants = []
    for name in study.variants:
        known = values[name][~np.isnan(values[name])]
        summary = summarise(known) if len(known) else None
        comparison = comparisons.get(name)
        num_failed, num_lost = len(failures[name]), len(failures[study.baseline])
        text = sentence(study, name, summary, comparison)
        text += _about_failures(num_failed, 0 if name == study.baseline else num_lost)
        kinds = tuple(dict.fromkeys(filter(None, failures[name])))
        variants.append(
            VariantReport(name, summary, comparison, learning[name], num_failed, text, kinds)
        )
    return StudyReport(
        study,
        seeds=tuple(dict.fromkeys(row["seed"] for row in rows)),
        folds=tuple(dict.fromkeys(row["fold"] for row in rows if row["fold"])),
        split=", ".join(sorted({row["part"] for row in rows if row["status"] == "done"})),
        variants=tuple(variants),
    )


def plan_study(study: Study, table: pd.DataFrame, difference: float) -> dict[str, Plan]:
    """Plan the seeds that show a true difference in accuracy, from those of a pilot.

    Variants with too few seeds, or with equal differences in all, show no spread and are left out.
    """
    rows, plans = _rows(table), {}
    values = _per_seed(rows, [row[METRIC] for row in rows])
    for name in study.others:
        pilot = paired(values[name], values[study.baseline])
        if len(pilot) >= 2 and np.ptp(pilot) > 0:
            count = 1 if name == study.primary else len(study.others)
            plans[name] = plan_seeds(pilot, difference, num_comparisons=count)
    return plans


_Row = dict[str, Any]


def _rows(table: pd.DataFrame) -> list[_Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _per_seed(rows: Sequence[_Row], values: Iterable[float]) -> dict[str, Float[np.ndarray, " S"]]:
    """Average values of rows over the folds of each seed; NaN where one has not finished."""
    folds: dict[str, dict[int, list[float]]] = {}
    for row, value in zip(rows, values, strict=True):
        of_seed = folds.setdefault(row["variant"], {}).setdefault(row["seed"], [])
        of_seed.append(value if row["status"] == "done" else math.nan)
    return {
        name: np.array([np.mean(of_seed) for of_seed in seeds.values()], dtype=np.float64)
        for name, seeds in folds.items()
    }


def _learning(study: Study, rows: Sequence[_Row]) -> dict[str, Learning | None]:
    """Measure the learning of every variant; None where no pair has finished."""
    done = [row for row in rows if row["status"] == "done"]
    best = {
        (row["seed"], row["fold"]): max(_curve(row))
        for row in done
        if row["variant"] == study.baseline
    }
    never_reached = Counter[str]()
    epochs = [math.nan] * len(rows)
    for place, row in enumerate(rows):
        if row["status"] == "done" and (row["seed"], row["fold"]) in best:
            target, curve = NEAR_BEST * best[row["seed"], row["fold"]] - 1e-9, _curve(row)
            reached = [number for number, value in enumerate(curve, 1) if value >= target]
            epochs[place] = reached[0] if reached else len(curve) + 1
            never_reached[row["variant"]] += not reached
    per_seed = _per_seed(rows, epochs)
    log_seconds = _per_seed(rows, np.log([row["train_seconds"] for row in rows]))
    found: dict[str, Learning | None] = {}
    for name in study.variants:
        differences = paired(per_seed[name], per_seed[study.baseline])
        log_ratios = log_seconds[name] - log_seconds[study.baseline]
        log_ratios = log_ratios[~np.isnan(log_ratios)]
        if not len(differences):
            found[name] = None
            continue
        interval = t_interval(log_ratios)
        found[name] = Learning(
            epochs=float(np.nanmean(per_seed[name])),
            never_reached=never_reached[name],
            difference=float(differences.mean()),
            difference_ci95=t_interval(differences),
            p=sign_flip_p(differences),
            time_ratio=math.exp(log_ratios.mean()),
            time_ratio_ci95=interval and (math.exp(interval[0]), math.exp(interval[1])),
        )
    return found


def _curve(row: _Row) -> list[float]:
    return [float(value) for value in row["val_accuracy_by_epoch"].split()]


def sentence(
    study: Study, name: str, summary: Summary | None, comparison: Comparison | None
) -> str:
    """Put the verdict on a variant into words that claim no more than the seeds allow."""
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
    p, p_name = comparison.p_holm, "Holm-adjusted p"
    if p is None:
        p, p_name = comparison.p, "p"
    tested = f"{p_name} = {p:.3g}, {comparison.n} seeds"
    if comparison.verdict == "too few seeds":
        return (
            f"too few seeds for a verdict: {comparison.n} of the {comparison.seeds_needed} asked "
            f"for; {points} over {study.baseline} so far"
        )
    if comparison.verdict == "no difference shown":
        return f"no difference to {study.baseline} shown: {points}, {tested}"
    return f"{comparison.verdict} than {study.baseline}: {points}, {tested}"


def _about_failures(num_failed: int, num_lost: int) -> str:
    failed = [f"{num_failed} of its own"] if num_failed else []
    failed += [f"{num_lost} of the baseline's"] if num_lost else []
    return f" ({' and '.join(failed)} failed, and count for nothing)" if failed else ""
