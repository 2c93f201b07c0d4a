import csv
import os

import pandas as pd
import pytest

from slrctl.evaluation.bootstrap import Evaluation
from slrctl.evaluation.metrics import ClassResult
from slrctl.reports.tables import overall_rows, spreadsheet_text, worst_classes, write_csv


def evaluation_of(per_class=(), classes=13):
    metrics = {"accuracy": 0.84375, "macro_accuracy": 0.8, "top5_accuracy": 1.0}
    metrics |= {"macro_f1": 0.79999, "nll": 1.23456, "ece": 0.0421}
    return Evaluation(
        clips=32,
        classes=classes,
        chance=1 / classes,
        majority_share=0.1,
        ci_unit="clip",
        note=None,
        metrics=metrics,
        intervals={name: (value / 2, value) for name, value in metrics.items()},
        per_class=tuple(per_class),
        confused=(),
    )


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_overall_rows_show_shares_in_percent_and_the_others_as_numbers():
    assert overall_rows(evaluation_of()) == [
        ("accuracy", "84.4 %", "42.2-84.4 %"),
        ("macro accuracy", "80.0 %", "40.0-80.0 %"),
        ("top-5 accuracy", "100.0 %", "50.0-100.0 %"),
        ("macro F1", "80.0 %", "40.0-80.0 %"),
        ("NLL (nats)", "1.235", "0.617-1.235"),
        ("ECE", "0.042", "0.021-0.042"),
    ]
    assert overall_rows(evaluation_of(classes=3))[2][0] == "top-3 accuracy"


def test_the_worst_classes_come_first_and_of_equals_the_larger_one():
    results: dict[str, tuple[int, float | None]] = {"half": (4, 0.5), "never": (3, 0.0)}
    results |= {"perfect": (9, 1.0), "half, larger": (8, 0.5), "without clips": (0, None)}
    per_class = [
        ClassResult(gloss, clips, accuracy, 0.5, 0.5, None, 0)
        for gloss, (clips, accuracy) in results.items()
    ]

    worst = worst_classes(evaluation_of(per_class))

    assert [row.gloss for row in worst] == ["never", "half, larger", "half"]
    assert worst_classes(evaluation_of(per_class), 1) == worst[:1]


@pytest.mark.parametrize(
    ("texts", "mark"),
    [(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"], "'"),
     (["thank you", "a=b", "", "안녕", "1-2"], "")],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(texts, mark):
    assert [spreadsheet_text(text) for text in texts] == [f"{mark}{text}" for text in texts]


def test_texts_of_a_csv_are_safe_and_numbers_stay_numbers(tmp_path):
    table = pd.DataFrame({"text": ["-x", None], "value": [-0.123456789, float("nan")]})

    write_csv(table, tmp_path / "table.csv", float_format="%.3g")

    assert read(tmp_path / "table.csv") == [["text", "value"], ["'-x", "-0.123"], ["", ""]]


def test_the_csv_has_one_row_a_class_and_empty_cells_where_undefined(tmp_path):
    per_class = [
        ClassResult('안녕, "you"', 4, 0.5, 1.0, 2 / 3, "=cmd", 2),
        ClassResult("=cmd", 0, None, 0.0, None, None, 0),
    ]

    write_csv(pd.DataFrame(per_class), tmp_path / "per_class.csv")

    assert read(tmp_path / "per_class.csv") == [
        ["gloss", "clips", "accuracy", "precision", "f1", "confused_with", "confused_clips"],
        ['안녕, "you"', "4", "0.5", "1.0", "0.6666666666666666", "'=cmd", "2"],
        ["'=cmd", "0", "", "0.0", "", "", "0"],
    ]
    assert os.listdir(tmp_path) == ["per_class.csv"]
