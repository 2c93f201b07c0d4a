"""Pictures of a study: a forest plot, learning curves, a surface over two settings."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from slrctl.reports.figures import (
    COLORS,
    CURVES,
    DASHES,
    GREEN,
    MAX_MARKED,
    VERMILLION,
    Style,
    count_epochs,
    saved_figure,
    write_in_cell,
)
from slrctl.studies.ablation.report import StudyReport
from slrctl.studies.ablation.study import cell_name
from slrctl.studies.statistics import Comparison, t_interval

_MARKS = ("s", "^", "D", "v", "P", "X", "<", ">")
_LEAST_REACH = 1.0  # points at which the colours of a surface end if no difference is larger
_VERDICTS = {"better": (GREEN, "^"), "worse": (VERMILLION, "v")}
_UNDECIDED = ("0.35", "o")


def _comparisons(report: StudyReport) -> dict[str, Comparison]:
    return {v.name: v.comparison for v in report.variants if v.comparison is not None}


def _difference_label(report: StudyReport) -> str:
    split = f"{report.split} " if report.split else ""
    return f"difference in {split}accuracy to {report.study.baseline} (points)"


def _counted(numbers: Sequence[int], noun: str) -> str:
    """Write one number, or the lowest and the highest: `1 seed`, `6 to 9 seeds`."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} {noun}" + ("" if high == 1 else "s")


def _pairs_title(report: StudyReport, verdict_look: str, *notes: str) -> str:
    found = _comparisons(report).values()
    title = f"{report.study.name}: {_counted([each.n for each in found], 'paired seed')}"
    if any(each.difference_ci95 is not None for each in found):
        title += ", Student-t 95 % intervals"
    if any(each.verdict in _VERDICTS for each in found):
        notes = (f"{verdict_look}: a verdict", *notes)
    return "\n".join([title, *(["; ".join(notes)] if notes else [])])


def draw_forest(report: StudyReport, *paths: Path) -> None:
    """Draw each variant's difference to the baseline, with its 95 % interval.

    Filled marks have a verdict; the primary contrast is bold. Variants without a pair are left out.
    """
    found = _comparisons(report)
    style = {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    with saved_figure((6.5, 1.3 + 0.36 * max(len(found), 2)), *paths, style=style) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="0.6", linewidth=1)
        for row, comparison in enumerate(found.values()):
            color, mark = _VERDICTS.get(comparison.verdict, _UNDECIDED)
            if comparison.difference_ci95 is not None:
                ends = [100 * end for end in comparison.difference_ci95]
                axes.plot(ends, [row, row], color=color, linewidth=1.5)
            filled = color if comparison.verdict in _VERDICTS else "white"
            difference = 100 * comparison.difference
            axes.plot(difference, row, mark, color=color, markerfacecolor=filled, markersize=7)
        axes.set_yticks(range(len(found)), list(found))
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.tick_params(left=False)
        axes.set_xlabel(_difference_label(report))
        notes = []
        if report.study.primary in found:
            axes.get_yticklabels()[list(found).index(report.study.primary)].set_fontweight("bold")
            notes = ["bold: the primary contrast"]
        axes.set_title(_pairs_title(report, "filled", *notes), fontsize=9)


def draw_learning_curves(report: StudyReport, table: pd.DataFrame, *paths: Path) -> None:
    """Draw validation accuracy by epoch, the mean over seeds; the baseline with its interval.

    As in the report, a seed's value is the mean over its folds, once all of them have finished.
    """
    found = _curves(table)
    curves = {name: found[name] for name in report.study.variants if name in found}
    num_epochs = max((runs.shape[1] for runs in curves.values()), default=1)
    # A legend no wider than the picture.
    label_inches = 0.65 + 0.055 * max(map(len, curves), default=1)
    columns = max(1, min(4, int(6.4 / label_inches), len(curves)))
    size = (6.5, 4.0 + 0.15 * math.ceil(len(curves) / columns))
    seeds = [len(runs) for runs in curves.values()]
    mean = "mean over " if max(seeds, default=0) > 1 else ""
    title = f"{report.study.name}: {mean}{_counted(seeds, 'seed')}"
    marks: Style = {"lines.markersize": 5, "lines.markerfacecolor": "none"}
    with saved_figure(size, *paths, style=CURVES | marks) as figure:
        axes = figure.subplots()
        for place, (name, runs) in enumerate(curves.items()):
            epochs = np.arange(1.0, runs.shape[1] + 1)
            if num_epochs == 1:  # side by side, or equal ones would hide one another
                epochs += 0.6 * ((place + 0.5) / len(curves) - 0.5)
            look = line_look(list(report.study.variants).index(name))
            if num_epochs > MAX_MARKED:
                look["marker"] = ""
            axes.plot(epochs, 100 * runs.mean(axis=0), label=name, **look)
            if name == report.study.baseline and len(runs) > 1:
                drawn_as = _draw_interval(axes, epochs, runs)
                title += f"; {drawn_as}: 95 % interval of {name}"
        axes.set_ylabel("validation accuracy (%)")
        count_epochs(axes, num_epochs)
        axes.set_title(title, fontsize=9)
        if curves:
            figure.legend(loc="outside lower center", ncols=columns, fontsize=7, handlelength=4)


def _curves(table: pd.DataFrame) -> dict[str, Float[np.ndarray, "S E"]]:
    """Return validation accuracies by variant, a row a seed that finished; of one length each."""
    num_folds = table["fold"].nunique(dropna=False)
    curves = {}
    for name, trials in table[table["status"] == "done"].groupby("variant"):
        runs = [
            [[float(value) for value in str(curve).split()] for curve in folds]
            for _, folds in trials.groupby("seed")["val_accuracy_by_epoch"]
            if len(folds) == num_folds
        ]
        if runs:
            shortest = min(len(curve) for folds in runs for curve in folds)
            cut = [[curve[:shortest] for curve in folds] for folds in runs]
            curves[str(name)] = np.array(cut).mean(axis=1)
    return curves


def line_look(number: int) -> dict[str, Any]:
    """Style the line of a variant by its place in the study; 0 is the baseline."""
    if number == 0:
        return {"color": "black", "linestyle": "-", "linewidth": 2.2, "marker": "o"}
    return {
        "color": COLORS[(number - 1) % len(COLORS)],
        "linestyle": DASHES[(number - 1) % len(DASHES)],
        "linewidth": 1.3,
        "marker": _MARKS[(number - 1) % len(_MARKS)],
    }


def _draw_interval(
    axes: Axes, epochs: Float[np.ndarray, " E"], runs: Float[np.ndarray, "S E"]
) -> str:
    """Draw the interval of the mean, and return the name of its look."""
    intervals = [t_interval(values) or (np.nan, np.nan) for values in runs.T]
    low, high = (100 * np.array(intervals).T).clip(0, 100)
    if len(epochs) == 1:
        axes.vlines(epochs, low, high, color="black", alpha=0.3, linewidth=4)
        return "bar"
    axes.fill_between(epochs, low, high, color="black", alpha=0.12)
    return "shaded"


def draw_surface(
    report: StudyReport, axes_values: Mapping[str, Sequence[str]], *paths: Path
) -> None:
    """Draw the mean difference over two settings as a heat map; blue is better than the baseline.

    A cell has its difference and the 95 % interval of it, and a frame where there is a verdict.
    `axes_values` has the values of both settings, as `grid_axes` gives them.
    """
    (row_key, row_values), (column_key, column_values) = axes_values.items()
    found = _comparisons(report)
    # Only a difference with a verdict gets the darkest colour.
    sizes = [
        100 * abs(each.difference) * (1 if each.verdict in _VERDICTS else 2)
        for each in found.values()
    ]
    reach = max([_LEAST_REACH, *sizes])
    size = (max(5.0, 2.2 + 1.2 * len(column_values)), max(3.4, 1.7 + 0.62 * len(row_values)))
    with saved_figure(size, *paths) as figure:
        axes = figure.subplots()
        axes.set_facecolor("0.85")
        cells = np.full((len(row_values), len(column_values)), np.nan)
        for row, column in itertools.product(range(len(row_values)), range(len(column_values))):
            name = cell_name({row_key: row_values[row], column_key: column_values[column]})
            if name in found:
                cells[row, column] = 100 * found[name].difference
                _fill_cell(axes, row, column, found[name], reach)
            elif name in report.study.variants:
                write_in_cell(axes, row, column, "no pair")
            else:  # the grid leaves out the settings of the baseline
                cells[row, column] = 0.0
                write_in_cell(axes, row, column, f"= {report.study.baseline}")
        edges = (np.arange(count + 1) - 0.5 for count in cells.shape[::-1])
        image = axes.pcolormesh(*edges, cells, cmap="RdBu", vmin=-reach, vmax=reach)
        image.set(edgecolor="white", linewidth=3)
        axes.invert_yaxis()
        axes.set_xticks(range(len(column_values)), column_values)
        axes.set_yticks(range(len(row_values)), row_values)
        axes.set(xlabel=column_key, ylabel=row_key)
        figure.colorbar(image, ax=axes).set_label(_difference_label(report), fontsize=8)
        axes.set_title(_pairs_title(report, "framed"), fontsize=9)


def _fill_cell(axes: Axes, row: int, column: int, comparison: Comparison, reach: float) -> None:
    difference, below = 100 * comparison.difference, "1 seed"
    if comparison.difference_ci95 is not None:
        low, high = comparison.difference_ci95
        below = f"{100 * low:+.1f} to {100 * high:+.1f}"
    text, is_dark = f"{difference:+.1f}\n{below}", abs(difference) > 0.6 * reach
    write_in_cell(axes, row, column, text, is_dark=is_dark)
    if comparison.verdict in _VERDICTS:
        corner = (column - 0.47, row - 0.46)
        frame: Style = {"fill": False, "edgecolor": "black", "linewidth": 2, "zorder": 2}
        axes.add_patch(Rectangle(corner, 0.94, 0.92, **frame))  # above the cells
