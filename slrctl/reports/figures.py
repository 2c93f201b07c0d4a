"""The figures of a run: its confusion matrix and its training curves.

Drawn with matplotlib's objects and the Agg canvas, never pyplot: no window and no global figure, so
they can be drawn anywhere. Colours are safe for the colour-blind (one hue, or those of Okabe and
Ito), and lines differ in style as well, for print.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from slrctl.evaluation.bootstrap import Evaluation
from slrctl.evaluation.metrics import confusion_counts
from slrctl.evaluation.predictions import Predictions
from slrctl.files import replacing
from slrctl.reports.tables import percent, percent_interval

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"


class Curve(NamedTuple):
    """A column of the history, and how it is drawn; without a label it is not in the legend."""

    key: str
    label: str
    color: str
    style: str


class Panel(NamedTuple):
    title: str
    axis_label: str
    curves: tuple[Curve, ...]
    lowest: float | None = None
    """Where the axis starts, None for wherever the data do."""


PANELS = (
    Panel(
        "accuracy",
        "accuracy (%)",
        (
            Curve("train_accuracy", "training", BLUE, "--"),
            Curve("val_accuracy", "validation", VERMILLION, "-"),
        ),
        lowest=0.0,
    ),
    Panel(
        "loss",
        "cross-entropy (nats)",
        (
            Curve("train_classification", "training", BLUE, "--"),
            Curve("val_loss", "validation", VERMILLION, "-"),
            Curve("train_loss", "training, with CMCL", GREEN, ":"),
        ),
    ),
    Panel("learning rate", "learning rate", (Curve("learning_rate", "", BLUE, "-"),), lowest=0.0),
    Panel(
        "CMCL: consistency",
        "consistency term (nats)",
        (Curve("train_consistency", "", GREEN, "-"),),
    ),
    Panel("CMCL: alignment", "alignment term", (Curve("train_alignment", "", GREEN, "-"),)),
    Panel(
        "CMCL: weights in force",
        "weight of the term",
        (
            Curve("lambda_consistency", "consistency", BLUE, "-"),
            Curve("lambda_alignment", "alignment", VERMILLION, "--"),
        ),
        lowest=0.0,
    ),
)


LONGEST_NAME = 32

# For scripts that matplotlib's own font lacks; a character is taken from the first that has it.
_OTHER_FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)


def available_families() -> list[str]:
    """The font that comes with matplotlib, then those installed for other scripts."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed)]


def gloss_labels(classes: Sequence[str], families: Sequence[str]) -> list[str]:
    """A label for each class.

    Where no family has a character of a gloss, which would be drawn as boxes with a warning for
    each, the label is `class n`, counted from 1: row n of the per-class table.
    """
    drawable = _drawable(families)
    names = [shortened(gloss) for gloss in classes]
    return [
        name if name and drawable.issuperset(map(ord, name)) else f"class {number}"
        for number, name in enumerate(names, start=1)
    ]


def drawn_text(text: str, families: Sequence[str], longest: int = LONGEST_NAME) -> str:
    """A text on one line, an empty square for each character that no family has."""
    drawable = _drawable(families)
    return "".join(
        character if ord(character) in drawable else "\u25a1"
        for character in shortened(text, longest)
    )


def _drawable(families: Sequence[str]) -> set[int]:
    """The code points that one of the families has."""
    drawable: set[int] = set()
    for family in families:
        font = font_manager.get_font(font_manager.findfont(family))
        drawable |= font.get_charmap().keys()
    return drawable


def shortened(gloss: str, longest: int = LONGEST_NAME) -> str:
    """The gloss on one line; a long one without its middle, as beginnings often agree."""
    name = " ".join(gloss.split())
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


DOTS_PER_INCH = 200
MAX_NAMED, MAX_NUMBERED = 40, 15
"""Most classes that all get their names on the axes; most that get numbers in the cells."""
NAMES_BEYOND = 25
MAX_POINTS = 15
"""Most epochs that are drawn as points too: a single one makes no line."""

Row = Mapping[str, Any]


def draw_confusion(predictions: Predictions, path: Path, evaluation: Evaluation) -> None:
    """Draw the share of each class's clips that got each name, one row a true class.

    Up to 40 classes all have their names on the axes, beyond that every n-th; up to 15 have the
    shares in the cells, in whole percent. Rows of classes without clips are grey.

    Args:
        predictions: at least one clip.
        path: the picture to write; its suffix chooses the format.
        evaluation: of these predictions, for the accuracy in the title.
    """
    counts = confusion_counts(predictions)
    clips = counts.sum(axis=1, keepdims=True)
    shares = np.where(clips > 0, counts / np.maximum(clips, 1), np.nan)
    num_classes = len(predictions.classes)
    side = min(2.6 + 0.4 * max(num_classes, 6), 10.0)  # inches
    figure = Figure(figsize=(1.12 * side, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.75")  # seen where the share is NaN
    image = axes.imshow(shares, cmap=colormaps["Blues"], vmin=0, vmax=1)
    _name_classes(axes, predictions.classes)
    if num_classes <= MAX_NUMBERED:
        _write_shares(axes, shares)
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
    _save(figure, path)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    step = 1 if len(classes) <= MAX_NAMED else math.ceil(len(classes) / NAMES_BEYOND)
    families = available_families()
    names = gloss_labels(classes, families)[::step]
    ticks = range(0, len(classes), step)
    size = 8 if len(ticks) <= NAMES_BEYOND else 7
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontsize=size, fontfamily=families)
        label.set_parse_math(False)  # or a gloss with two $ would be set as a formula


def _write_shares(axes: Axes, shares: Float[np.ndarray, "K K"]) -> None:
    for row, column in np.argwhere(shares > 0):
        share = shares[row, column]
        ink = "white" if share > 0.5 else "black"
        axes.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=8
        )


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw how a training went, epoch by epoch; a panel without any measured value is left out.

    Args:
        rows: one mapping an epoch, as in `metrics.jsonl`: `epoch` from 1, any key of `PANELS`
            (None or absent where not measured), and `is_best`, true where a checkpoint was kept:
            the last of those is marked as the best.
        path: the picture to write; its suffix chooses the format.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no epochs to draw; curves need at least one row")
    panels = [panel for panel in PANELS if any(_is_shown(rows, c.key) for c in panel.curves)]
    num_rows = max(1, math.ceil(len(panels) / 3))
    figure = Figure(figsize=(10.5, 3.1 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, 3, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, rows)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    epochs = [row["epoch"] for row in rows]
    for curve in panel.curves:
        if _is_shown(rows, curve.key):
            axes.plot(
                epochs,
                _values(rows, curve.key),
                color=curve.color,
                linestyle=curve.style,
                linewidth=1.6,
                marker="o" if len(rows) <= MAX_POINTS else "",
                markersize=4,
                label=curve.label or "_",  # matplotlib leaves a leading underscore out
                clip_on=False,  # or the frame would cut a point at its edge in half
            )
    axes.set_title(panel.title)
    axes.set_ylabel(panel.axis_label)
    axes.set_xlabel("epoch")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=panel.lowest)
    if panel.title == "accuracy":
        axes.set_ylim(top=1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
    _mark_best(axes, panel, rows)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)


def _mark_best(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    kept = [row for row in rows if row.get("is_best")]
    if not kept:
        return
    epoch, accuracy = kept[-1]["epoch"], kept[-1].get("val_accuracy")
    axes.axvline(epoch, color="0.5", linewidth=0.8, linestyle=":", zorder=1)
    if panel.title == "accuracy" and accuracy is not None:
        label = f"best: epoch {epoch}, {percent(accuracy)}"
        axes.plot(
            epoch,
            accuracy,
            linestyle="none",
            marker="*",
            markersize=13,
            markerfacecolor="none",  # the points below show through
            color="black",
            label=label,
            clip_on=False,
        )


def _values(rows: Sequence[Row], key: str) -> Float[np.ndarray, " E"]:
    """One column, with NaN where it was not measured: matplotlib leaves a gap there."""
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def _is_shown(rows: Sequence[Row], key: str) -> bool:
    """Whether a curve says anything: it was measured, and does not repeat another one."""
    values = _values(rows, key)
    if key in ("lambda_consistency", "lambda_alignment"):
        return bool((values > 0).any())
    if key == "train_loss":  # without CMCL it is the cross-entropy
        values = values - np.nan_to_num(_values(rows, "train_classification"))
        return bool((np.abs(values[np.isfinite(values)]) > 1e-6).any())
    return bool(np.isfinite(values).any())


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        # The tight box lets no label be cut off where the layout runs out of room.
        figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight")
