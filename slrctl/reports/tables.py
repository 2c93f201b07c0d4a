"""Numbers as text, the rows of an evaluation, and CSV files that are safe in a spreadsheet."""

from pathlib import Path
from typing import TYPE_CHECKING

from slrctl.files import replacing

# Commands import this module before they know whether there is anything to compute.
if TYPE_CHECKING:
    import pandas as pd

    from slrctl.evaluation.bootstrap import Evaluation
    from slrctl.evaluation.metrics import ClassResult

_TITLES = {
    "accuracy": "accuracy",
    "macro_accuracy": "macro accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL (nats)",
    "ece": "ECE",
}


def percent(fraction: float) -> str:
    """Write 0.8437 as `84.4 %`."""
    return f"{100 * fraction:.1f} %"


def percent_interval(interval: tuple[float, float]) -> str:
    """Write (0.81, 0.875) as `81.0-87.5 %`."""
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f} %"


def overall_rows(evaluation: "Evaluation") -> list[tuple[str, str, str]]:
    """Show each metric, its value and its 95 % interval; all but NLL and ECE in percent."""
    rows = []
    for name, value in evaluation.metrics.items():
        low, high = evaluation.intervals[name]
        title = _TITLES.get(name, f"top-{min(5, evaluation.classes)} accuracy")
        if name in ("nll", "ece"):
            rows.append((title, f"{value:.3f}", f"{low:.3f}-{high:.3f}"))
        else:
            rows.append((title, percent(value), percent_interval((low, high))))
    return rows


def worst_classes(evaluation: "Evaluation", count: int = 10) -> "list[ClassResult]":
    """Give the classes recognised worst, of those with any error; among equals the largest."""
    judged = [
        (row.accuracy, -row.clips, row)
        for row in evaluation.per_class
        if row.accuracy is not None and row.accuracy < 1
    ]
    return [row for *_, row in sorted(judged, key=lambda entry: entry[:2])[:count]]


def spreadsheet_text(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_csv(table: "pd.DataFrame", path: Path, *, float_format: str | None = None) -> None:
    """Write a UTF-8 file, whole or not at all; a missing value is an empty cell.

    Every text goes through `spreadsheet_text`.
    """
    safe = table.map(lambda cell: spreadsheet_text(cell) if isinstance(cell, str) else cell)
    with replacing(path) as unfinished:
        safe.to_csv(unfinished, index=False, float_format=float_format)
