"""Attention of one clip as figures for a paper: all maps of a layer, averaged or head by head.

Sizes are those of a two-column page, text is 6 to 8 points, and lines and text are vectors in SVG
and PDF. Frames count from 1.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from slrctl.files import replacing
from slrctl.reports.figures import available_families, drawn_text
from slrctl.studies.attention.measures import relative_entropy
from slrctl.studies.attention.record import AttentionMap, InspectedClip

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType


NEARLY_UNIFORM = 2.0
"""Where no weight is this many times uniform, the scale does not start at 0 but is stretched."""


class Scale(NamedTuple):
    """The lowest and the highest value that are told apart."""

    low: float
    high: float

    @property
    def is_stretched(self) -> bool:
        return self.low > 0

    def place(self, picture: Float[np.ndarray, "Q T"]) -> Float[np.ndarray, "Q T"]:
        """Where values lie on the scale, 0 to 1."""
        return np.clip((picture - self.low) / (self.high - self.low), 0.0, 1.0)


def relative(found: AttentionMap, weights: Float[np.ndarray, "Q T"]) -> Float[np.ndarray, "Q T"]:
    """Weights over those of uniform attention; NaN where the reader or the read is missing."""
    shown = weights.astype(np.float64) * max(int(found.keys_count.sum()), 1)
    return np.where(found.rows_count[:, None] & found.keys_count, shown, np.nan)


def scale_for(pictures: Sequence[Float[np.ndarray, "Q T"]]) -> Scale:
    """From 0 to the largest value shown; stretched where all values are near 1.

    Attention that is nearly uniform would be one flat colour from 0 on, and a stretched scale says
    by its numbers how small the differences are.
    """
    shown = np.concatenate([p[np.isfinite(p)].ravel() for p in pictures])
    if not len(shown):
        return Scale(0.0, NEARLY_UNIFORM)
    low, high = float(shown.min()), float(shown.max())
    if high >= NEARLY_UNIFORM:
        return Scale(0.0, high)
    # A map that is uniform to the last bit has no range of its own.
    return Scale(min(low, 0.99), max(high, 1.01))


PART_NAMES = {
    "left_hand": "left hand",
    "right_hand": "right hand",
    "body": "body",
    "clip": "all parts",
    "class_query": "class query",
}
DIVERGENCES = {"kl": "KL", "symmetric": "symmetric KL", "js": "JS"}


PAGE_WIDTH = 7.2  # inches
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.labelpad": 2,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "pdf.fonttype": 42,  # letters stay letters
    "svg.fonttype": "none",
    "svg.hashsalt": "slrctl",  # or the same picture would have other bytes every time
}
HEAT, MISSING = "viridis", "0.75"
_DOTS_PER_INCH = 300
_LONGEST = 48  # letters of an id or a gloss above a figure


def draw_maps(inspected: InspectedClip, layer: str, path: Path) -> None:
    """Draw all maps of a layer, the heads averaged, on one scale."""
    maps = inspected.layers[layer]
    pictures = [relative(found, found.mean) for found in maps]
    scale = scale_for(pictures)
    num_columns = min(len(maps), 3)
    num_rows = math.ceil(len(maps) / num_columns)
    is_single = maps[0].weights.shape[1] == 1
    height = 1.5 if is_single else 0.45 + 2.3 * num_rows * 3 / max(num_columns, 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="compressed")
        grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, found, picture in zip(grid, maps, pictures, strict=True):
            draw_map(axes, picture, scale, found)
            axes.set_title(f"{reading(found)}\nentropy {_mean_entropy(found)}")
        num_heads = len(maps[0].weights)
        name_clip(figure, inspected, f"{layer}, mean of {num_heads} heads")
        _colour_bar(figure, grid.tolist(), scale)
        save(figure, path)


def draw_heads(inspected: InspectedClip, layer: str, path: Path) -> None:
    """Draw every head of every map of a layer, a row a head."""
    maps = inspected.layers[layer]
    pictures = [[relative(found, head) for head in found.weights] for found in maps]
    scale = scale_for([picture for heads in pictures for picture in heads])
    num_heads = max(map(len, pictures))
    is_single = maps[0].weights.shape[1] == 1
    side = (PAGE_WIDTH - 0.9) / max(len(maps), 3)
    with matplotlib.rc_context(STYLE):
        size = (PAGE_WIDTH, 0.9 + (0.32 if is_single else side + 0.12) * num_heads)
        figure = Figure(figsize=size, layout="compressed")
        grid = figure.subplots(num_heads, len(maps), squeeze=False)
        for column, (found, heads) in enumerate(zip(maps, pictures, strict=True)):
            for head in range(num_heads):
                _draw_head(grid[head, column], found, heads, head, scale)
            grid[0, column].set_title(reading(found).replace(" reads ", "\nreads "), fontsize=7)
        for head in range(num_heads):
            axes = grid[head, 0]
            axes.annotate(
                f"head {head + 1}",
                (0, 0.5),
                xytext=(-26, 0),
                xycoords="axes fraction",
                textcoords="offset points",
                rotation=0 if is_single else 90,
                ha="right",
                va="center",
                fontsize=7,
            )
        name_clip(figure, inspected, f"{layer}, every head; H: entropy relative to uniform")
        _colour_bar(figure, grid.ravel().tolist(), scale)
        save(figure, path)


def draw_comparison(inspected: Sequence[InspectedClip], names: Sequence[str], path: Path) -> None:
    """Draw both maps between the hands for each of several runs, a row a run, on one scale."""
    ways = ("left_to_right", "right_to_left")
    maps = [[one.fusion[way] for way in ways] for one in inspected]
    pictures = [[relative(found, found.mean) for found in row] for row in maps]
    scale = scale_for([picture for row in pictures for picture in row])
    families = available_families()
    with matplotlib.rc_context(STYLE):
        size = (0.8 * PAGE_WIDTH, 0.4 + 2.6 * len(maps))
        figure = Figure(figsize=size, layout="compressed")
        grid = figure.subplots(len(maps), 2, squeeze=False)
        for row, (one, name) in enumerate(
            zip(inspected, [drawn_text(name, families) for name in names], strict=True)
        ):
            for column in range(2):
                found = maps[row][column]
                draw_map(grid[row, column], pictures[row][column], scale, found)
                title = grid[row, column].set_title(
                    f"{name} ({100 * one.confidence:.1f} %): {reading(found)}\n"
                    f"entropy {_mean_entropy(found)}",
                    fontsize=7,
                    fontfamily=families,
                )
                title.set_parse_math(False)
        _colour_bar(figure, grid.ravel().tolist(), scale)
        save(figure, path)


def _draw_head(
    axes: Axes, found: AttentionMap, heads: list[Float[np.ndarray, "Q T"]], head: int, scale: Scale
) -> None:
    if head >= len(heads):  # the body's encoder has fewer heads than the hands'
        axes.set_axis_off()
        return
    draw_map(axes, heads[head], scale, found)
    axes.set_ylabel("")
    is_last = head + 1 == len(heads)
    axes.set_xlabel(f"{PART_NAMES[found.read]} (frame)" if is_last else "", fontsize=6.5)
    axes.tick_params(labelsize=6, labelbottom=is_last)
    entropy = float(relative_entropy(found)[head])
    if not math.isnan(entropy):
        axes.text(
            *(0.97, 0.03, f"H {entropy:.3f}"),
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=5.5,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        )


def draw_map(
    axes: Axes,
    picture: Float[np.ndarray, "Q T"],
    scale: Scale,
    found: AttentionMap,
    *,
    palette: str = HEAT,
) -> AxesImage:
    """Draw one map: the reader's frames down, those it reads across; missing ones grey."""
    num_rows, num_frames = picture.shape
    image = axes.imshow(
        picture,
        cmap=colormaps[palette].with_extremes(bad=MISSING),
        norm=Normalize(*scale),
        interpolation="none",
        aspect="auto" if num_rows == 1 else "equal",
        extent=(0.5, num_frames + 0.5, num_rows + 0.5, 0.5),
    )
    axes.set_xlabel(f"{PART_NAMES[found.read]} (frame)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if num_rows == 1:
        axes.set_yticks([])
    else:
        axes.set_ylabel(f"{PART_NAMES[found.reader]} (frame)")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return image


def reading(found: AttentionMap) -> str:
    """What a map shows, in words."""
    if found.reader == found.read:
        return f"{PART_NAMES[found.reader]} reads itself"
    return f"{PART_NAMES[found.reader]} reads {PART_NAMES[found.read]}"


def _mean_entropy(found: AttentionMap) -> str:
    entropy = float(relative_entropy(found).mean())
    return "-" if math.isnan(entropy) else f"{entropy:.3f} of uniform"


def name_clip(figure: Figure, inspected: InspectedClip, what: str) -> None:
    """Say above a figure which clip it shows and what the model made of it."""
    families = available_families()
    clip_id, gloss, predicted = (
        drawn_text(text, families, _LONGEST)
        for text in (inspected.clip.clip_id, inspected.clip.gloss, inspected.predicted)
    )
    verdict = "" if inspected.is_right else f", the sign is {gloss}"
    title = figure.suptitle(
        f"{clip_id} ({what})\npredicted {predicted}, {100 * inspected.confidence:.1f} %{verdict}",
        fontsize=8,
    )
    title.set(fontfamily=families)
    title.set_parse_math(False)


def unit(scale: Scale) -> str:
    """What a colour bar is labelled."""
    return "times uniform attention" + (" (stretched)" if scale.is_stretched else "")


def _colour_bar(figure: Figure, axes: list[Axes], scale: Scale) -> None:
    mappable = ScalarMappable(Normalize(*scale), colormaps[HEAT])
    bar = figure.colorbar(mappable, ax=axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label(unit(scale))
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]


def save(figure: Figure, path: Path) -> None:
    """Write the picture; its suffix chooses the format. The same picture has the same bytes."""
    FigureCanvasAgg(figure)
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with replacing(path) as unfinished:
        figure.savefig(
            unfinished,
            dpi=_DOTS_PER_INCH,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata=dated.get(path.suffix),
        )
