"""The pictures of a study: a forest plot, learning curves, a surface over two settings.

Drawn as `slrctl.reports.figures` are, to PNG and SVG.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slrctl.engine.files import replacing
from slrctl.reports.figures import DOTS_PER_INCH
from slrctl.studies.ablation.report import StudyReport
from slrctl.studies.statistics import t_interval

# Okabe and Ito's eight, told apart by the colour-blind; styles tell them apart in print.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
STYLES = ("-", "--", "-.", ":")
_MARKS = {"better": ("#009E73", "^"), "worse": ("#D55E00", "v")}
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
        color, mark = _MARKS.get(comparison.verdict, _UNDECIDED)
        if comparison.difference_ci95 is not None:
            low, high = comparison.difference_ci95
            axes.plot([100 * low, 100 * high], [row, row], color=color, linewidth=1.5)
        filled = color if comparison.verdict in _MARKS else "white"
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
    axes.set_xlabel(f"difference in {report.part} accuracy to {report.study.baseline} (points)")
    axes.set_title(
        f"{report.study.name}: {len(report.seeds)} paired seeds, Student-t 95 % intervals\n"
        "filled: a verdict; bold: the primary contrast",
        fontsize=9,
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return _save(figure, folder, "forest")


def draw_learning_curves(report: StudyReport, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Validation accuracy over the epochs, the mean over seeds; the baseline with its interval."""
    curves = _curves(table)
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(report.study.variants):
        runs = curves.get(name)
        if runs is None:
            continue
        epochs = np.arange(1, runs.shape[1] + 1)
        is_baseline = name == report.study.baseline
        style = "-" if is_baseline else STYLES[number % len(STYLES)]
        axes.plot(
            epochs,
            100 * runs.mean(axis=0),
            style,
            color=COLORS[number % len(COLORS)],
            linewidth=2.2 if is_baseline else 1.3,
            label=name,
        )
        if is_baseline and len(runs) > 1:
            _shade(axes, epochs, runs)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{report.study.name}: mean over {len(report.seeds)} seeds; "
        f"shaded: 95 % interval of {report.study.baseline}",
        fontsize=9,
    )
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    return _save(figure, folder, "learning_curves")


def draw_surface(
    report: StudyReport, axes_values: Mapping[str, Sequence[str]], folder: Path
) -> list[Path]:
    """The mean difference over two settings, as a heat map; blue is better than the baseline.

    Args:
        report: a grid over exactly two settings.
        axes_values: for both settings their values, as `grid_axes` gives them.
        folder: where the pictures go.
    """
    (row_key, row_values), (column_key, column_values) = axes_values.items()
    found = {variant.name: variant.comparison for variant in report.variants}
    cells = np.full((len(row_values), len(column_values)), np.nan)
    for row, row_value in enumerate(row_values):
        for column, column_value in enumerate(column_values):
            name = f"{_last(row_key)}={row_value} {_last(column_key)}={column_value}"
            comparison = found.get(name)
            if comparison is not None:
                cells[row, column] = 100 * comparison.difference
    figure = Figure(
        figsize=(2.2 + 0.9 * len(column_values), 1.6 + 0.6 * len(row_values)), layout="constrained"
    )
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    reach = max(0.5, float(np.nanmax(np.abs(cells))) if not np.isnan(cells).all() else 0.5)
    image = axes.imshow(
        cells, cmap=colormaps["RdBu"], norm=TwoSlopeNorm(0, -reach, reach), aspect="auto"
    )
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            color = "white" if abs(value) > 0.6 * reach else "black"
            axes.text(column, row, f"{value:+.1f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(column_values)), list(column_values))
    axes.set_yticks(range(len(row_values)), list(row_values))
    axes.set_xlabel(column_key)
    axes.set_ylabel(row_key)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"difference to {report.study.baseline} (points)")
    axes.set_title(f"{report.study.name}: {len(report.seeds)} seeds", fontsize=9)
    return _save(figure, folder, "surface")


def grid_axes(grids: Sequence[str]) -> dict[str, list[str]]:
    """The settings of `--grid` options and their values."""
    return {
        key.strip(): [value.strip() for value in text.split(",")]
        for key, _, text in (grid.partition("=") for grid in grids)
    }


def _curves(table: pd.DataFrame) -> dict[str, Float[np.ndarray, "R E"]]:
    """The finished runs' validation accuracies by variant; of one length each."""
    curves: dict[str, list[list[float]]] = {}
    for row in table.to_dict("records"):
        if row["status"] == "done":
            values = [float(value) for value in str(row["val_accuracy_by_epoch"]).split()]
            curves.setdefault(str(row["variant"]), []).append(values)
    shortest = {name: min(map(len, runs)) for name, runs in curves.items()}
    return {
        name: np.array([run[: shortest[name]] for run in runs]) for name, runs in curves.items()
    }


def _shade(axes: Axes, epochs: Int64[np.ndarray, " E"], runs: Float[np.ndarray, "R E"]) -> None:
    intervals = [t_interval(values) or (np.nan, np.nan) for values in runs.T]
    low, high = 100 * np.array(intervals).T
    axes.fill_between(epochs, low.clip(0, 100), high.clip(0, 100), color=COLORS[0], alpha=0.12)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    FigureCanvasAgg(figure)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        # Without a date and with ids that repeat, the same study gives the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with replacing(path) as unfinished, rc_context({"svg.hashsalt": name}):
            figure.savefig(unfinished, dpi=DOTS_PER_INCH, bbox_inches="tight", metadata=metadata)
    return paths
