"""The pictures of a study: a forest plot, learning curves, a surface over two settings.

Drawn as `slrctl.reports.figures` are, to PNG and SVG.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from slrctl.files import replacing
from slrctl.reports.figures import DOTS_PER_INCH
from slrctl.studies.ablation.report import StudyReport
from slrctl.studies.ablation.study import cell_name
from slrctl.studies.statistics import Comparison, t_interval

# Okabe and Ito's, told apart by the colour-blind; styles and marks tell them apart in print. Seven
# colours and six styles, each in its own cycle, make 42 pairs before one comes again.
BASELINE_COLOR = "#000000"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
STYLES = (
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1.5, 1, 1.5)),
    "-",
    (0, (10, 2, 3, 2)),
    (0, (4, 1, 1, 1, 1, 1)),
)
MARKS = ("s", "^", "D", "v", "P", "X", "<", ">")
MAX_MARKED = 15
"""Most epochs that are marked on the lines; a single one makes no line."""
LEAST_REACH = 1.0
"""Points at which the colours of a surface end if no difference is larger."""
_VERDICTS = {"better": ("#009E73", "^"), "worse": ("#D55E00", "v")}
_UNDECIDED = ("0.35", "o")


def draw_forest(report: StudyReport, folder: Path) -> list[Path]:
    """Each variant's difference to the baseline, with its 95 % interval.

    Filled marks have a verdict; the primary contrast is bold. Variants without a pair are left out.
    """
    shown = [(v.name, v.comparison) for v in report.variants if v.comparison is not None]
    figure = Figure(figsize=(6.5, 1.3 + 0.36 * max(len(shown), 2)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=1)
    for row, (_, comparison) in enumerate(shown):
        color, mark = _VERDICTS.get(comparison.verdict, _UNDECIDED)
        if comparison.difference_ci95 is not None:
            low, high = comparison.difference_ci95
            axes.plot([100 * low, 100 * high], [row, row], color=color, linewidth=1.5)
        filled = color if comparison.verdict in _VERDICTS else "white"
        axes.plot(
            100 * comparison.difference,
            row,
            mark,
            color=color,
            markerfacecolor=filled,
            markersize=7,
        )
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    for label, (name, _) in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if name == report.study.primary else "normal")
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(_difference_label(report))
    notes = ["filled: a verdict"] if _has_verdict(report) else []
    if report.study.primary in dict(shown):
        notes.append("bold: the primary contrast")
    axes.set_title(_pairs_title(report, notes), fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return _save(figure, folder, "forest")


def draw_learning_curves(report: StudyReport, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Validation accuracy over the epochs, the mean over seeds; the baseline with its interval.

    As in the report, a seed's value is the mean over its folds, once all of them have finished.
    """
    curves = _curves(table)
    shown = {number: n for number, n in enumerate(report.study.variants) if n in curves}
    longest = max((curves[name].shape[1] for name in shown.values()), default=1)
    columns, rows = _legend_shape(list(shown.values()))
    figure = Figure(figsize=(6.5, 4.0 + 0.15 * rows), layout="constrained")
    axes = figure.subplots()
    title = _mean_title(report, [len(curves[name]) for name in shown.values()])
    for place, (number, name) in enumerate(shown.items()):
        runs = curves[name]
        epochs = np.arange(1.0, runs.shape[1] + 1)
        if longest == 1:  # side by side, or equal ones would hide one another
            epochs += 0.6 * ((place + 0.5) / len(shown) - 0.5)
        axes.plot(
            epochs,
            100 * runs.mean(axis=0),
            label=name,
            markersize=5,
            markerfacecolor="none",
            **_look(number, is_marked=longest <= MAX_MARKED),
        )
        if name == report.study.baseline and len(runs) > 1:
            drawn_as = _draw_interval(axes, epochs, runs)
            title += f"; {drawn_as}: 95 % interval of {name}"
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_xlim(0.5, longest + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=9)
    if shown:
        figure.legend(
            loc="outside lower center", ncols=columns, fontsize=7, frameon=False, handlelength=4
        )
    return _save(figure, folder, "learning_curves")


def draw_surface(
    report: StudyReport, axes_values: Mapping[str, Sequence[str]], folder: Path
) -> list[Path]:
    """The mean difference over two settings, as a heat map; blue is better than the baseline.

    A cell has its difference and the 95 % interval of it, and a frame where there is a verdict.

    Args:
        report: a grid over exactly two settings.
        axes_values: for both settings their values, as `grid_axes` gives them.
        folder: where the pictures go.
    """
    (row_key, row_values), (column_key, column_values) = axes_values.items()
    figure = Figure(
        figsize=(max(5.0, 2.2 + 1.2 * len(column_values)), max(3.4, 1.7 + 0.62 * len(row_values))),
        layout="constrained",
    )
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    cells = np.full((len(row_values), len(column_values)), np.nan)
    reach = _reach(report)
    found = {variant.name: variant.comparison for variant in report.variants}
    places = itertools.product(enumerate(row_values), enumerate(column_values))
    for (row, row_value), (column, column_value) in places:
        name = cell_name({row_key: row_value, column_key: column_value})
        comparison = found.get(name)
        if name not in found:  # the grid leaves out what the baseline is
            cells[row, column] = 0.0
            _write(axes, row, column, f"= {report.study.baseline}")
        elif comparison is None:
            _write(axes, row, column, "no pair")
        else:
            cells[row, column] = 100 * comparison.difference
            _write_difference(axes, row, column, comparison, reach)
    image = axes.imshow(cells, cmap=colormaps["RdBu"], vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(len(column_values)), list(column_values))
    axes.set_yticks(range(len(row_values)), list(row_values))
    axes.set_xticks(np.arange(0.5, len(column_values) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(row_values) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(column_key)
    axes.set_ylabel(row_key)
    figure.colorbar(image, ax=axes).set_label(_difference_label(report), fontsize=8)
    notes = ["framed: a verdict"] if _has_verdict(report) else []
    axes.set_title(_pairs_title(report, notes), fontsize=9)
    return _save(figure, folder, "surface")


def _write_difference(
    axes: Axes, row: int, column: int, comparison: Comparison, reach: float
) -> None:
    difference, interval = comparison.difference, comparison.difference_ci95
    below = "1 seed"
    if interval is not None:
        below = f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    ink = "white" if abs(100 * difference) > 0.6 * reach else "black"
    _write(axes, row, column, f"{100 * difference:+.1f}\n{below}", ink)
    if comparison.verdict in _VERDICTS:
        corner = (column - 0.47, row - 0.46)
        axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor="black", linewidth=2))


def _write(axes: Axes, row: int, column: int, text: str, ink: str = "black") -> None:
    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)


def _reach(report: StudyReport) -> float:
    """Points at which the colours end: only a difference with a verdict gets the darkest one."""
    sizes = [
        100 * abs(found.difference) * (1 if found.verdict in _VERDICTS else 2)
        for found in _comparisons(report)
    ]
    return max([LEAST_REACH, *sizes])


def _look(number: int, *, is_marked: bool) -> dict[str, Any]:
    """How the line of a variant looks, by its place in the study; 0 is the baseline."""
    if number == 0:
        look = {"color": BASELINE_COLOR, "linestyle": "-", "linewidth": 2.2, "marker": "o"}
    else:
        look = {
            "color": COLORS[(number - 1) % len(COLORS)],
            "linestyle": STYLES[(number - 1) % len(STYLES)],
            "linewidth": 1.3,
            "marker": MARKS[(number - 1) % len(MARKS)],
        }
    return look if is_marked else {**look, "marker": ""}


def _legend_shape(names: Sequence[str]) -> tuple[int, int]:
    """Columns and rows of a legend that is no wider than the picture."""
    longest = max(map(len, names), default=1)
    inches = 0.65 + 0.055 * longest
    columns = max(1, min(4, int(6.4 / inches), len(names)))
    return columns, math.ceil(len(names) / columns)


def _comparisons(report: StudyReport) -> list[Comparison]:
    return [v.comparison for v in report.variants if v.comparison is not None]


def _has_verdict(report: StudyReport) -> bool:
    return any(found.verdict in _VERDICTS for found in _comparisons(report))


def _difference_label(report: StudyReport) -> str:
    part = f"{report.split} " if report.split else ""
    return f"difference in {part}accuracy to {report.study.baseline} (points)"


def _pairs_title(report: StudyReport, notes: Sequence[str]) -> str:
    """The study, the pairs its differences rest on, what intervals they have, and notes below."""
    found = _comparisons(report)
    title = f"{report.study.name}: {_count([each.n for each in found], 'paired seed')}"
    has_interval = any(each.difference_ci95 is not None for each in found)
    title += ", Student-t 95 % intervals" if has_interval else ""
    return "\n".join([title, "; ".join(notes)] if notes else [title])


def _mean_title(report: StudyReport, num_seeds: Sequence[int]) -> str:
    mean = "mean over " if max(num_seeds, default=0) > 1 else ""
    return f"{report.study.name}: {mean}{_count(num_seeds, 'seed')}"


def _count(numbers: Sequence[int], noun: str) -> str:
    """One number, or the lowest and the highest: `1 seed`, `6 to 9 seeds`."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} {noun}" + ("" if high == 1 else "s")


def _curves(table: pd.DataFrame) -> dict[str, Float[np.ndarray, "S E"]]:
    """Validation accuracies by variant, a row a seed that finished; of one length each."""
    num_folds = table["fold"].nunique(dropna=False)
    runs: dict[str, dict[int, list[list[float]]]] = {}
    for row in table.to_dict("records"):
        if row["status"] == "done":
            values = [float(value) for value in str(row["val_accuracy_by_epoch"]).split()]
            runs.setdefault(str(row["variant"]), {}).setdefault(int(row["seed"]), []).append(values)
    curves = {}
    for name, by_seed in runs.items():
        finished = [folds for folds in by_seed.values() if len(folds) == num_folds]
        if finished:
            shortest = min(len(curve) for folds in finished for curve in folds)
            cut = [[curve[:shortest] for curve in folds] for folds in finished]
            curves[name] = np.array(cut).mean(axis=1)
    return curves


def _draw_interval(
    axes: Axes, epochs: Float[np.ndarray, " E"], runs: Float[np.ndarray, "S E"]
) -> str:
    """Draw the interval of the mean, and say what it is drawn as."""
    intervals = [t_interval(values) or (np.nan, np.nan) for values in runs.T]
    low, high = (100 * np.array(intervals).T).clip(0, 100)
    if len(epochs) == 1:
        axes.vlines(epochs, low, high, color=BASELINE_COLOR, alpha=0.3, linewidth=4)
        return "bar"
    axes.fill_between(epochs, low, high, color=BASELINE_COLOR, alpha=0.12)
    return "shaded"


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    FigureCanvasAgg(figure)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        # Without a date and with ids that repeat, the same study gives the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with replacing(path) as unfinished, rc_context({"svg.hashsalt": name}):
            figure.savefig(unfinished, dpi=DOTS_PER_INCH, bbox_inches="tight", metadata=metadata)
    return paths
