"""A report against an independent recomputation from its own table."""

import itertools
import json
import math
import statistics
from typing import Any

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
        seconds = 10.0 + generator.random()
        rows.append((name, number, fold, "done", "test", "", round(accuracy, 6), seconds, CURVE))
    columns = "variant seed fold status part failure accuracy train_seconds val_accuracy_by_epoch"
    return pd.DataFrame(rows, columns=columns.split())


AB = Study("s", {"a": {}, "b": {"seed": 2}}, "b")


def changed(table, change) -> pd.DataFrame:
    """Lay `change` of each row over it."""
    return pd.DataFrame([{**row, **change(row)} for row in table.to_dict("records")])


def plain_comparison(baseline: list[float], variant: list[float]) -> dict[str, Any]:
    """Compare two variants as `docs/method.md` (Ablation) says, in plain Python."""
    d = [b - a for a, b in zip(baseline, variant, strict=True)]
    n, mean = len(d), statistics.fmean(d)
    half = 2.3060 * statistics.stdev(d) / math.sqrt(n)  # t(8) at 97.5 %, from a printed table
    flips = [abs(sum(s * x for s, x in zip(signs, d, strict=True)))
             for signs in itertools.product((1, -1), repeat=n)]  # fmt: skip
    return {
        "n": n,
        "mean": pytest.approx(statistics.fmean(variant)),
        "sd": pytest.approx(statistics.stdev(variant)),
        "difference": pytest.approx(mean),
        "difference_ci95": pytest.approx([mean - half, mean + half], abs=1e-5),
        "p": sum(flip >= abs(sum(d)) - 1e-9 for flip in flips) / 2**n,
        "probability_of_improvement": sum(x > 0 for x in d) / n,
    }


def test_every_number_of_the_report_follows_from_its_table():
    study = built_in("cmcl")
    table = table_of(study, 9, shifts={"full": 0.05, "aggressive": -0.05})

    report = json.loads(json.dumps(report_study(study, table).to_json()))

    rows, found = table.to_dict("records"), report["variants"]
    values = {
        name: [row["accuracy"] for row in rows if row["variant"] == name] for name in study.variants
    }
    plain = {name: plain_comparison(values["CE"], values[name]) for name in study.others}
    others = sorted((plain[name]["p"], name) for name in study.others if name != "full")
    highest, p_holm = 0.0, {}
    for rank, (p, name) in enumerate(others):
        p_holm[name] = highest = max(highest, min(1.0, (len(others) - rank) * p))
    assert {name: {key: found[name][key] for key in plain[name]} for name in plain} == plain
    assert {name: found[name]["p_holm"] for name in p_holm} == pytest.approx(p_holm)
    assert {key: report[key] for key in ("study", "baseline", "primary")} == {
        "study": "cmcl", "baseline": "CE", "primary": "full",
    }  # fmt: skip
    assert report["seeds"] == list(range(9))
    verdicts = {name: found[name]["verdict"] for name in ("CE", "full", "aggressive", "adaptive")}
    assert verdicts == {
        "CE": "baseline", "full": "better", "aggressive": "worse",
        "adaptive": "no difference shown",
    }  # fmt: skip
    assert found["full"]["p_holm"] is None


@pytest.mark.parametrize(
    ("num_seeds", "shift", "words"),
    [
        (3, 0.1, ["too few seeds", "3 of the 6"]),
        (9, 0.05, ["better than a: +", "p = 0.00391, 9 seeds"]),
        (9, -0.05, ["worse than a: -", "p = 0.00391, 9 seeds"]),
        (9, 0.0, ["no difference to a shown"]),
    ],
)
def test_a_sentence_names_verdict_p_and_seeds(num_seeds, shift, words):
    found = report_study(AB, table_of(AB, num_seeds, shifts={"b": shift})).variants[1]

    assert [word for word in words if word not in found.sentence] == []


def test_folds_of_a_seed_are_averaged_before_seeds_are_compared():
    table = table_of(AB, 6, folds=("anna", "ben"))

    found = report_study(AB, table).to_json()

    sums = {"a": 0.0, "b": 0.0}
    for row in table.to_dict("records"):
        sums[row["variant"]] += row["accuracy"] / 12
    b = found["variants"]["b"]
    assert (b["n"], b["difference"]) == (6, pytest.approx(sums["b"] - sums["a"]))
    assert found["folds"] == ["anna", "ben"]


def test_a_seed_with_a_missing_fold_does_not_count():
    table = table_of(AB, 6, folds=("anna", "ben"))
    failed = (table["variant"] == "b") & (table["seed"] == 2) & (table["fold"] == "ben")

    found = report_study(AB, table.assign(status=np.where(failed, "failed", "done"))).to_json()

    assert [found["variants"]["b"][name] for name in ("n", "failed")] == [5, 1]


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

    variants = report_study(study, table).to_json()["variants"]

    a, b, c = (variants[name]["learning"] for name in "abc")
    assert (a["epochs"], b["epochs"], b["difference"], b["p"]) == (3.0, 1.0, -2.0, 2 / 2**6)
    assert (c["epochs"], c["never_reached"]) == (3.0, 6)
    assert b["time_ratio"] == pytest.approx(2.0)


def test_a_study_without_any_finished_trial_has_no_numbers():
    found = report_study(AB, table_of(AB, 2).assign(status="failed")).to_json()["variants"]

    assert [(found[name]["n"], found[name]["mean"]) for name in "ab"] == [(0, None)] * 2
    assert [found[name]["verdict"] for name in "ab"] == ["baseline", "too few seeds"]


def test_a_verdict_counts_the_failed_trials_that_bear_on_it():
    study = Study("s", {"a": {}, "b": {"seed": 2}, "c": {"seed": 3}}, "b")
    failed = {("b", 0), ("b", 1), ("a", 2)}
    table = changed(
        table_of(study, 9, shifts={"b": 0.2}),
        lambda row: {"status": "failed"} if (row["variant"], row["seed"]) in failed else {},
    )

    report = report_study(study, table)

    a, b, c = report.variants
    assert [one.failed for one in (a, b, c)] == [1, 2, 0]
    assert report.to_json()["variants"]["a"]["verdict"] == "baseline"
    assert "1 of its own failed" in a.sentence
    assert "2 of its own and 1 of the baseline's failed" in b.sentence
    assert "1 of the baseline's failed" in c.sentence


def test_means_over_folds_in_another_order_are_no_difference():
    folds = ("x", "y", "z")
    of_fold = {"a": (0.1, 0.2, 0.3), "b": (0.3, 0.2, 0.1)}
    table = changed(
        table_of(AB, 6, folds=folds),
        lambda row: {"accuracy": of_fold[row["variant"]][folds.index(row["fold"])]},
    )

    b = report_study(AB, table).to_json()["variants"]["b"]

    assert (b["difference"], b["p"], b["probability_of_improvement"]) == (0, 1, 0.5)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_text_says_whether_epochs_were_chosen_on_its_accuracies(split):
    text = markdown(report_study(AB, table_of(AB, 2).assign(part=split)), [])

    assert f"| {split} accuracy (95 % interval) |" in text
    assert ("on which each run's epoch was chosen" in text) == (split == "validation")


@pytest.mark.parametrize(
    "write",
    [lambda r: markdown(r, []), latex, lambda r: page(r, [], [])],
    ids=["md", "tex", "html"],
)
def test_from_20_seeds_a_bootstrap_interval_stands_beside(write):
    report = report_study(AB, table_of(AB, 20))

    low, high = report.to_json()["variants"]["b"]["difference_bca95"]
    assert f"; BCa {100 * low:+.2f} to {100 * high:+.2f}" in write(report)


def test_a_difference_that_is_the_same_in_every_seed_is_called_no_certainty():
    table = table_of(AB, 2).assign(accuracy=[0.5, 0.75, 0.5, 0.75])  # a, b, a, b

    report = report_study(AB, table)

    assert "+25.00 points (in every seed, which is no certainty)" in report.variants[1].sentence
    assert study_rows(report)[1][4] == "+25.00 (in every seed)"
