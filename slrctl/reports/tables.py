"""An evaluation as rows of text for a console or a page, and as a CSV file."""

import csv
from pathlib import Path
from typing import NamedTuple

from slrctl.evaluation.bootstrap import Evaluation
from slrctl.evaluation.metrics import ClassResult, ConfusedPair
from slrctl.files import replacing

_PLAIN_NUMBERS = ("nll", "ece")
_TITLES = {
    "accuracy": "accuracy",
    "macro_accuracy": "macro accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL (nats)",
    "ece": "ECE",
}


class OverallRow(NamedTuple):
    """A metric, its value and its 95 % interval, ready to be shown."""

    metric: str
    value: str
    interval: str


def percent(fraction: float) -> str:
    """0.8437 as `84.4 %`."""
    return f"{100 * fraction:.1f} %"


def percent_interval(interval: tuple[float, float]) -> str:
    """(0.81, 0.875) as `81.0-87.5 %`."""
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f} %"


def overall_rows(evaluation: Evaluation) -> list[OverallRow]:
    """One row a metric: shares in percent with one decimal, NLL and ECE as numbers."""
    rows = []
    for name, value in evaluation.metrics.items():
        interval = evaluation.intervals[name]
        title = _TITLES.get(name, f"top-{min(5, evaluation.classes)} accuracy")
        if name in _PLAIN_NUMBERS:
            row = OverallRow(title, f"{value:.3f}", f"{interval[0]:.3f}-{interval[1]:.3f}")
        else:
            row = OverallRow(title, percent(value), percent_interval(interval))
        rows.append(row)
    return rows


def worst_classes(evaluation: Evaluation, count: int = 10) -> list[ClassResult]:
    """The classes recognised worst, of those with any error; of equals the one with more clips."""
    judged = [
        (row.accuracy, -row.clips, row)
        for row in evaluation.per_class
        if row.accuracy is not None and row.accuracy < 1
    ]
    return [row for *_, row in sorted(judged, key=lambda entry: entry[:2])[:count]]


def most_confused(evaluation: Evaluation, count: int = 10) -> list[ConfusedPair]:
    """The pairs with most clips taken for each other, one direction a row."""
    return list(evaluation.confused[:count])


def spreadsheet_text(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    Those are the texts that begin with = + - @ or a tab or a carriage return. Glosses come from
    other people's files, and a CSV file is opened with a double click.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_per_class_csv(evaluation: Evaluation, path: Path) -> None:
    """Save one row a class, whole or not at all: UTF-8, fractions in 0-1, empty where undefined.

    Glosses go through `spreadsheet_text`, so one that begins with = is preceded by an apostrophe.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(ClassResult._fields)
        for row in evaluation.per_class:
            safe = row._replace(
                gloss=spreadsheet_text(row.gloss),
                confused_with=row.confused_with and spreadsheet_text(row.confused_with),
            )
            writer.writerow(safe)  # the csv module writes None as an empty cell
