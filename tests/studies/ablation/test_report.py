"""A report against an independent recomputation from its own table."""

import itertools
import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest

from slrctl.reports.study_page import latex, markdown, page, study_rows
from slrctl.studies.ablation.report import report_study
from slrctl.studies.ablation.study import Study, built_in

CURVE = "0.400000 0.700000 0.850000 0.900000"


def table_of(study, num_seeds, *, folds=("",), shifts=None, seed=5) -> pd.DataFrame:
    generator, rows = np.random.default_rng(seed), []
    for number, fold, name in itertools.product(range(num_seeds), folds, study.variants):
        accuracy = 0.8 + 0.01 * number + (shifts or {}).get(name, 0.0) + generator.normal(0, 0.01)
        row = {"variant": name, "seed": number, "fold": fold, "status": "done", "part": "test"}
        row |= {"failure": ""}
        row |= {"accuracy": round(accuracy, 6), "train_seconds": 10.0 + generator.random()}
        row |= {"val_accuracy_by_epoch": CURVE}
        rows.append(row)
    return pd.DataFrame(rows)


def plain_comparison(baseline: list[float], variant: list[float]) -> dict[str, float]:
    """Compare two variants as `docs/method.md` (Ablation) says, in plain Python."""
    d = [b - a for a, b in zip(baseline, variant, strict=True)]
    n, mean = len(d), statistics.fmean(d)
    # Quantiles of Student's t at 97.5 %, from a printed table.
    t = {4: 2.7764, 8: 2.3060}[n - 1]
    half = t * statistics.stdev(d) / math.sqrt(n)
    flips = [abs(sum(s * x for s, x in zip(signs, d, strict=True)))
             for signs in itertools.product((1, -1), repeat=n)]  # fmt: skip
    p = sum(flip >= abs(sum(d)) - 1e-9 for flip in flips) / 2**n
    improved = sum(1.0 if x > 0 else 0.5 if x == 0 else 0.0 for x in d) / n
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": p, "better": improved}


@pytest.mark.parametrize("num_seeds", [5, 9])
def test_every_number_of_the_report_follows_from_its_table(num_seeds):
    study = built_in("cmcl")
    table = table_of(study, num_seeds, shifts={"full": 0.03, "aggressive": -0.03})

    found = json.loads(json.dumps(report_study(study, table).to_json()))["variants"]

    rows = table.to_dict("records")
    values = {
        name: [row["accuracy"] for row in rows if row["variant"] == name] for name in study.variants
    }
    plain = {name: plain_comparison(values["CE"], values[name]) for name in study.others}
    others = sorted((plain[name]["p"], name) for name in study.others if name != "full")
    highest = 0.0
    for rank, (p, name) in enumerate(others):
        highest = max(highest, min(1.0, (len(others) - rank) * p))
        assert found[name]["p_holm"] == pytest.approx(highest)
    for name in study.others:
        one, its = plain[name], found[name]
        assert its["n"] == num_seeds
        assert its["mean"] == pytest.approx(statistics.fmean(values[name]))
        assert its["sd"] == pytest.approx(statistics.stdev(values[name]))
        assert its["difference"] == pytest.approx(one["difference"])
        assert its["difference_ci95"] == pytest.approx([one["low"], one["high"]], abs=1e-5)
        assert its["p"] == pytest.approx(one["p"])
        assert its["probability_of_improvement"] == pytest.approx(one["better"])
    assert found["full"]["p_holm"] is None
    assert found["CE"]["verdict"] == "baseline"


def test_verdicts_say_what_was_shown_and_in_how_many_seeds():
    study = built_in("cmcl")
    table = table_of(study, 9, shifts={"full": 0.05, "aggressive": -0.05})

    report = report_study(study, table)

    sentences = {variant.name: variant.sentence for variant in report.variants}
    assert sentences["full"].startswith("better than CE: +")
    assert sentences["full"].endswith("p = 0.00391, 9 seeds")
    assert sentences["aggressive"].startswith("worse than CE: -")
    assert "Holm-adjusted p = 0.0234" in sentences["aggressive"]
    assert sentences["conservative"].startswith("no difference to CE shown: ")


@pytest.mark.parametrize(("num_seeds", "full", "other"), [(3, 6, 9), (6, None, 9)])
def test_with_too_few_seeds_it_says_how_many_are_needed(num_seeds, full, other):
    study = built_in("cmcl")
    report = report_study(study, table_of(study, num_seeds, shifts={"full": 0.1}))

    sentences = {variant.name: variant.sentence for variant in report.variants}

    assert f"{num_seeds} of the {other} asked for" in sentences["adaptive"]
    assert (f"of the {full} " in sentences["full"]) == (full is not None)


def test_folds_of_a_seed_are_averaged_before_seeds_are_compared():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")
    table = table_of(study, 6, folds=("anna", "ben"))

    found = report_study(study, table)

    sums = {"a": 0.0, "b": 0.0}
    for row in table.to_dict("records"):
        sums[row["variant"]] += row["accuracy"] / 12
    comparison = found.variants[1].comparison
    assert comparison is not None
    assert comparison.n == 6
    assert comparison.difference == pytest.approx(sums["b"] - sums["a"])
    assert found.folds == ("anna", "ben")


def changed(table, change) -> pd.DataFrame:
    """The table with every row as `change` makes it."""
    return pd.DataFrame([{**row, **change(row)} for row in table.to_dict("records")])


def test_a_seed_with_a_missing_fold_does_not_count():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")
    table = changed(
        table_of(study, 6, folds=("anna", "ben")),
        lambda row: (
            {"status": "failed"}
            if (row["variant"], row["seed"], row["fold"]) == ("b", 2, "ben")
            else {}
        ),
    )

    found = report_study(study, table).variants[1]

    assert found.comparison is not None
    assert found.comparison.n == 5
    assert found.failed == 1


def test_learning_is_measured_against_the_baseline_of_the_same_seed():
    study = Study("s", {"a": {}, "b": {"seed": 2}, "c": {"seed": 3}}, "b")
    # 90 % of the baseline's best, 0.9, is 0.81: in its third epoch.
    curves = {"a": CURVE, "b": "0.820000 0.900000", "c": "0.100000 0.200000"}
    seconds = {"a": 10.0, "b": 20.0, "c": 10.0}
    table = changed(
        table_of(study, 6),
        lambda row: {
            "val_accuracy_by_epoch": curves[row["variant"]],
            "train_seconds": seconds[row["variant"]],
        },
    )

    a, b, c = (variant.learning for variant in report_study(study, table).variants)

    assert a is not None
    assert b is not None
    assert c is not None
    assert (a.epochs, b.epochs, b.difference) == (3.0, 1.0, -2.0)
    assert (c.epochs, c.never_reached) == (3.0, 6)
    assert b.time_ratio == pytest.approx(2.0)
    assert b.p == 2 / 2**6


def test_a_study_without_any_finished_trial_says_so():
    study = built_in("cmcl")
    table = table_of(study, 2).assign(status="failed")

    report = report_study(study, table)

    assert {v.summary for v in report.variants} == {None}
    assert "no trial of it has finished" in report.variants[3].sentence
    assert report.to_json()["variants"]["full"]["verdict"] == "too few seeds"


def test_p_values_are_adjusted_for_the_comparisons_that_were_declared():
    study = built_in("cmcl")
    table = table_of(study, 9, shifts={"adaptive": 0.05})
    whole = report_study(study, table)
    gone = ("conservative", "aggressive", "consistency only", "alignment only")

    without = report_study(
        study,
        changed(table, lambda row: {"status": "failed"} if row["variant"] in gone else {}),
    )

    (comparison,) = (v.comparison for v in without.variants if v.name == "adaptive")
    (as_declared,) = (v.comparison for v in whole.variants if v.name == "adaptive")
    assert comparison == as_declared
    assert comparison is not None
    assert comparison.p_holm == pytest.approx(6 * 2 / 2**9)


def test_a_verdict_says_how_many_trials_failed():
    study = Study("s", {"a": {}, "b": {"seed": 2}, "c": {"seed": 3}}, "b")
    failed = {("b", 0), ("b", 1), ("a", 2)}
    table = changed(
        table_of(study, 9, shifts={"b": 0.2}),
        lambda row: {"status": "failed"} if (row["variant"], row["seed"]) in failed else {},
    )

    a, b, c = (variant.sentence for variant in report_study(study, table).variants)

    assert a == "the baseline (1 of its own failed, and count for nothing)"
    assert b.startswith("better than a: ")
    assert b.endswith("(2 of its own and 1 of the baseline's failed, and count for nothing)")
    assert c.endswith("(1 of the baseline's failed, and count for nothing)")


def test_means_over_folds_in_another_order_are_no_difference():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")
    folds = ("x", "y", "z")
    of_fold = {"a": (0.1, 0.2, 0.3), "b": (0.3, 0.2, 0.1)}
    table = changed(
        table_of(study, 6, folds=folds),
        lambda row: {"accuracy": of_fold[row["variant"]][folds.index(row["fold"])]},
    )

    comparison = report_study(study, table).variants[1].comparison

    assert comparison is not None
    assert (comparison.difference, comparison.p) == (0, 1)
    assert comparison.probability_of_improvement == 0.5
    assert comparison.verdict == "no difference shown"


def test_accuracies_of_validation_clips_are_said_to_be_chosen_on():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")

    of_test = markdown(report_study(study, table_of(study, 2)), [])
    of_validation = markdown(report_study(study, table_of(study, 2).assign(part="validation")), [])

    assert "| test accuracy (95 % interval) |" in of_test
    assert "on which each run's epoch was chosen" not in of_test
    assert "| validation accuracy (95 % interval) |" in of_validation
    assert "on which each run's epoch was chosen" in of_validation


def test_from_20_seeds_a_bootstrap_interval_stands_beside():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")
    report = report_study(study, table_of(study, 20))

    comparison = report.variants[1].comparison
    assert comparison is not None
    assert comparison.difference_bca95 is not None
    low, high = comparison.difference_bca95
    for text in (markdown(report, []), latex(report), page(report, [], [])):
        assert f"; BCa {100 * low:+.2f} to {100 * high:+.2f}" in text
        assert "bias-corrected" in text


def test_a_difference_that_is_the_same_in_every_seed_is_called_no_certainty():
    study = Study("s", {"a": {}, "b": {"seed": 2}}, "b")
    table = changed(
        table_of(study, 2), lambda row: {"accuracy": 0.5 if row["variant"] == "a" else 0.75}
    )

    report = report_study(study, table)

    assert "+25.00 points (in every seed, which is no certainty)" in report.variants[1].sentence
    assert study_rows(report)[1][4] == "+25.00 (in every seed)"
