"""Look of all figures; the confusion matrix and the training curves of a run.

Figures are matplotlib objects without pyplot, so they open no window and share no state. Colours
are those of Okabe and Ito, safe for the colour-blind; lines differ in style as well, for print.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from slrctl.evaluation.bootstrap import Evaluation
from slrctl.evaluation.metrics import confusion_counts
from slrctl.evaluation.predictions import Predictions
from slrctl.files import replacing
from slrctl.reports.tables import percent, percent_interval

Style = dict[Any, Any]
"""Matplotlib's settings by name."""

# Seven colours and six styles, each in its own cycle, make 42 pairs before one repeats.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
DASHES = ("--", ":", "-.", "-", (0, (10, 2, 3, 2)), (0, (4, 1, 1, 1, 1, 1)))
MAX_MARKED = 15
"""Most epochs that are marked on a line; a single one makes no line."""
CURVES: Style = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "0.9",
    "legend.fontsize": 8,
    "legend.frameon": False,
}
"""Style of figures with curves."""

# For scripts that matplotlib's own font lacks; a character is taken from the first that has it.
_OTHER_FONTS = (
    *("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS"),
)
_LONGEST_NAME = 32


@cache
def available_fonts() -> tuple[str, ...]:
    """Name the font that comes with matplotlib, then those installed for other scripts."""
    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed))


@cache
def _drawable(fonts: tuple[str, ...]) -> set[int]:
    """Return the code points that one of the fonts has."""
    files = [font_manager.get_font(font_manager.findfont(font)) for font in fonts]
    return {code for file in files for code in file.get_charmap()}


def shortened(text: str, longest: int = _LONGEST_NAME) -> str:
    """Put a text on one line; a long one loses its middle, as beginnings often agree."""
    name = " ".join(text.split())
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def drawn_text(
    text: str, longest: int = _LONGEST_NAME, fonts: tuple[str, ...] | None = None
) -> str:
    """Shorten a text; a character that no font has becomes an empty square."""
    drawable = _drawable(fonts or available_fonts())
    return "".join(c if ord(c) in drawable else "\u25a1" for c in shortened(text, longest))


def gloss_labels(classes: Sequence[str], fonts: tuple[str, ...] | None = None) -> list[str]:
    """Label each class with its gloss.

    Where no font has a character of it, the label is `class n`, counted from 1: row n of the
    per-class table.
    """
    names = [shortened(gloss) for gloss in classes]
    return [
        name if name and name == drawn_text(name, fonts=fonts) else f"class {number}"
        for number, name in enumerate(names, start=1)
    ]


def base_style() -> Style:
    """Return settings of every figure: fonts for all scripts, and no text read as a formula."""
    return {
        "font.family": list(available_fonts()),
        "text.parse_math": False,
        "savefig.dpi": 200,
        "savefig.bbox": "tight",  # no label is cut off where the layout runs out of room
        "svg.hashsalt": "slrctl",  # else the ids in an SVG differ from one drawing to the next
    }


@contextmanager
def saved_figure(
    size: tuple[float, float],
    *paths: Path,
    layout: Literal["constrained", "compressed"] | None = "constrained",
    style: Style | None = None,
) -> Iterator[Figure]:
    """Give an empty figure, and write it when the block ends.

    Args:
        size: width and height in inches.
        paths: files to write; the suffix chooses the format. Equal figures give equal bytes.
        layout: how matplotlib places the axes.
        style: settings beside those of `base_style`.
    """
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({**base_style(), **(style or {})}):
        figure = Figure(size, layout=layout)
        yield figure
        for path in paths:
            with replacing(path) as temporary:
                figure.savefig(temporary, metadata=undated.get(path.suffix))


MAX_NAMED, MAX_NUMBERED = 40, 15
"""Most classes that all get their names on the axes; most that get numbers in the cells."""


def draw_confusion(predictions: Predictions, path: Path, evaluation: Evaluation) -> None:
    """Draw the share of each class's clips that got each name, one row a true class.

    Up to 40 classes all have their names on the axes, beyond that every n-th; up to 15 have the
    shares in the cells, in whole percent. Rows of classes without clips are grey. The title has the
    accuracy of the evaluation.
    """
    counts = confusion_counts(predictions)
    clips = counts.sum(axis=1, keepdims=True)
    shares = np.where(clips > 0, counts / np.maximum(clips, 1), np.nan)
    num_classes = len(predictions.classes)
    step = 1 if num_classes <= MAX_NAMED else math.ceil(num_classes / 25)
    ticks, names = range(0, num_classes, step), gloss_labels(predictions.classes)[::step]
    side = min(2.6 + 0.4 * max(num_classes, 6), 10.0)
    with saved_figure((1.12 * side, side), path) as figure:
        axes = figure.subplots()
        axes.set_facecolor("0.75")  # seen where the share is NaN
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(ticks, names, rotation=90)
        axes.set_yticks(ticks, names)
        axes.tick_params(labelsize=8 if len(ticks) <= 25 else 7)
        if num_classes <= MAX_NUMBERED:
            for row, column in np.argwhere(shares > 0):
                share = shares[row, column]
                write_in_cell(axes, row, column, f"{100 * share:.0f}", is_dark=bool(share > 0.5))
        axes.set_xlabel("predicted gloss")
        axes.set_ylabel("true gloss")
        interval = percent_interval(evaluation.intervals["accuracy"])
        axes.set_title(
            f"accuracy {percent(evaluation.metrics['accuracy'])}, 95 % interval {interval}\n"
            f"clips: {evaluation.clips}, classes: {num_classes}, resampled by {evaluation.ci_unit}",
            fontsize=10,
        )
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
        bar.set_label("share of the true gloss's clips")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))


def write_in_cell(axes: Axes, row: int, column: int, text: str, *, is_dark: bool = False) -> None:
    """Write in a cell of a heat map."""
    ink = "white" if is_dark else "black"
    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)


class Panel(NamedTuple):
    """Some columns of the history in one plot.

    `curves` maps a column to its label, empty for none in the legend. The vertical axis starts at
    `lowest`, by default at the lowest value.
    """

    title: str
    axis_label: str
    curves: dict[str, str]
    lowest: float | None = None


PANELS = (
    Panel(
        "accuracy",
        "accuracy (%)",
        {"val_accuracy": "validation", "train_accuracy": "training"},
        lowest=0.0,
    ),
    Panel(
        "loss",
        "cross-entropy (nats)",
        {
            "val_loss": "validation",
            "train_classification": "training",
            "train_loss": "training, with CMCL",
        },
    ),
    Panel("learning rate", "learning rate", {"learning_rate": ""}, lowest=0.0),
    Panel("CMCL: consistency", "consistency term (nats)", {"train_consistency": ""}),
    Panel("CMCL: alignment", "alignment term", {"train_alignment": ""}),
    Panel(
        "CMCL: weights in force",
        "weight of the term",
        {"lambda_consistency": "consistency", "lambda_alignment": "alignment"},
        lowest=0.0,
    ),
)


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a training, epoch by epoch; a panel without any measured value is left out.

    Rows are those of `metrics.jsonl`, at least one: `epoch` from 1, any key of `PANELS` (None or
    absent where not measured), and `is_best`, true where a checkpoint was kept: the last of those
    is marked as the best.
    """
    values = _measured_columns(rows)
    panels = [panel for panel in PANELS if panel.curves.keys() & values.keys()]
    num_rows = max(1, math.ceil(len(panels) / 3))
    best = next((row for row in reversed(rows) if row.get("is_best")), None)
    lines: Style = {"lines.linewidth": 1.6, "lines.markersize": 4}
    with saved_figure((10.5, 3.1 * num_rows), path, style=CURVES | lines) as figure:
        grid = figure.subplots(num_rows, 3, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel, values, best)
            count_epochs(axes, len(rows))


def _measured_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, " E"]]:
    """Return the curves that say anything, NaN where an epoch was not measured."""
    values = {
        key: np.array([np.nan if row.get(key) is None else row[key] for row in rows], float)
        for panel in PANELS
        for key in panel.curves
    }
    terms = values["train_loss"] - np.nan_to_num(values["train_classification"])
    if not (np.abs(terms) > 1e-6).any():
        del values["train_loss"]  # without CMCL it is the cross-entropy
    for key in ("lambda_consistency", "lambda_alignment"):
        if not (values[key] > 0).any():
            del values[key]
    return {key: column for key, column in values.items() if np.isfinite(column).any()}


def _draw_panel(
    axes: Axes,
    panel: Panel,
    values: Mapping[str, Float[np.ndarray, " E"]],
    best: Mapping[str, Any] | None,
) -> None:
    looks = zip((VERMILLION, BLUE, GREEN), ("-", "--", ":"), strict=True)
    for (key, label), (color, dashes) in zip(panel.curves.items(), looks, strict=False):
        if key in values:
            column = values[key]
            look: Style = {"color": color, "linestyle": dashes, "label": label or "_"}
            look["marker"] = "o" if len(column) <= MAX_MARKED else ""
            # Clipped, a point at the frame would be cut in half; a label of "_" is in no legend.
            axes.plot(range(1, len(column) + 1), column, clip_on=False, **look)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.axis_label)
    axes.set_ylim(bottom=panel.lowest)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if best is not None:
        axes.axvline(best["epoch"], color="0.5", linewidth=0.8, linestyle=":", zorder=1)
    if panel.title == "accuracy":
        axes.set_ylim(top=1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        if best is not None and best.get("val_accuracy") is not None:
            accuracy = best["val_accuracy"]
            label = f"best: epoch {best['epoch']}, {percent(accuracy)}"
            star = {"markersize": 13, "markerfacecolor": "none", "clip_on": False}
            axes.plot(best["epoch"], accuracy, "k*", label=label, **star)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def count_epochs(axes: Axes, num_epochs: int) -> None:
    """Give the horizontal axis whole epochs."""
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, num_epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
