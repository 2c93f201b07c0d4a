"""Figures about attention over a data set: mean maps and lags by gloss, curves of faithfulness."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from slrctl.reports.attention_figures import (
    HEAT,
    NEARLY_UNIFORM,
    PAGE_WIDTH,
    STYLE,
    Scale,
    save,
    unit,
)
from slrctl.reports.figures import available_families, gloss_labels
from slrctl.studies.attention.faithfulness import FRACTIONS, Faithfulness
from slrctl.studies.attention.measures import CLEAR
from slrctl.studies.attention.summary import GlossSummary, Summary

MAX_GLOSSES = 24
"""Glosses in a figure, those with most clips; the npz has all."""
# Okabe and Ito's colours, and other dashes for print without colour.
_LINES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", (0, (3, 1, 1, 1))),
    ("#E69F00", (0, (5, 1))),
)
_CONTROLS = {"random": ("black", ":"), "hands first": ("0.5", ":")}


def draw_mean_maps(summary: Summary, path: Path) -> bool:
    """Draw each gloss's mean maps, left to right and right to left, and how sure they are.

    A black dot marks cells whose 95 % interval leaves out uniform attention. Returns whether there
    was anything to draw: a set in which the hands never meet has no such maps.
    """
    shown = [one for one in _most_frequent(summary) if np.isfinite(one.mean).any()]
    if not shown:
        return False
    across = min(4, len(shown))
    down = math.ceil(len(shown) / across)
    known = np.concatenate([one.mean[np.isfinite(one.mean)] for one in shown])
    highest = float(known.max())
    lowest = float(known.min())
    # As in the maps of a clip: from 0 on, unless all of it is near uniform.
    scale = Scale(0.0 if highest >= NEARLY_UNIFORM else lowest, highest)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_WIDTH, 0.7 + 1.15 * down), layout="compressed")
        grid = figure.subplots(down, 2 * across, squeeze=False)
        image = None
        for axes in grid.ravel():
            axes.set_axis_off()
        labels = gloss_labels([one.gloss for one in shown], available_families())
        for number, (one, label) in enumerate(zip(shown, labels, strict=True)):
            row, column = number // across, 2 * (number % across)
            for way in range(2):
                axes = grid[row, column + way]
                axes.set_axis_on()
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_facecolor("0.8")
                image = axes.imshow(one.mean[way], cmap=HEAT, vmin=scale.low, vmax=scale.high)
                is_sure = (one.low[way] > 1) | (one.high[way] < 1)
                places = np.argwhere(is_sure)
                axes.plot(
                    places[:, 1],
                    places[:, 0],
                    marker="s",
                    linestyle="",
                    color="black",
                    markersize=0.6,
                    markeredgewidth=0,
                )
                axes.set_xlabel(("L reads R", "R reads L")[way], fontsize=5.5, labelpad=1)
            title = grid[row, column].set_title(
                f"{label} ({one.clips})", fontsize=6, loc="left", fontfamily=available_families()
            )
            title.set_parse_math(False)
        if image is not None:
            bar = figure.colorbar(image, ax=grid.ravel().tolist(), fraction=0.02, pad=0.01)
            bar.set_label(unit(scale), fontsize=7)
        figure.suptitle(
            "mean attention between the hands, start of the clip to its end (reader down)\n"
            "black dots: the 95 % interval leaves out uniform attention",
            fontsize=8,
        )
        save(figure, path)
    return True


def draw_lags(summary: Summary, path: Path) -> bool:
    """Draw the lags read off the maps of each gloss's clips, as large as many have them.

    Returns whether there was anything to draw.
    """
    shown = [one for one in _most_frequent(summary) if one.lags]
    if not shown:
        return False
    labels = gloss_labels([one.gloss for one in shown], available_families())
    with matplotlib.rc_context(STYLE):
        size = (PAGE_WIDTH, 0.8 + 0.22 * max(len(shown), 2))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for row, one in enumerate(shown):
            lags, is_clear = np.array(one.lags), np.array(one.strengths) >= CLEAR
            for chosen, face in ((lags[~is_clear], "none"), (lags[is_clear], "#0072B2")):
                places, counts = np.unique(chosen, return_counts=True)
                areas = 3 + 80 * counts / len(lags)
                heights = np.full(len(places), row)
                axes.scatter(
                    places, heights, s=areas, facecolor=face, edgecolor="#0072B2", linewidth=0.6
                )
            axes.plot(np.median(lags), row, "|", color="black", markersize=9, markeredgewidth=1.2)
        axes.axvline(0, color="0.6", linewidth=0.7, zorder=0)
        axes.set_yticks(range(len(shown)), labels)
        for label in axes.get_yticklabels():
            label.set(fontsize=6, fontfamily=available_families())
            label.set_parse_math(False)
        axes.invert_yaxis()
        axes.set_xlabel("lag of the right hand behind the left, read off the maps (frames)")
        axes.set_title(
            "area: share of the gloss's clips; bar: median; "
            f"hollow: noise, the diagonal gets under {CLEAR:g} times uniform"
        )
        save(figure, path)
    return True


def draw_faithfulness(found: Faithfulness, path: Path) -> None:
    """Draw the mean deletion and insertion curve of every order."""
    names = list(found.curves)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind, what in zip(
            panels, ("deletion", "insertion"), ("removed", "put in"), strict=True
        ):
            for name in names:
                mean = getattr(found.curves[name], kind).mean(axis=0)
                color, dashes = _CONTROLS.get(name) or _LINES[names.index(name) % len(_LINES)]
                axes.plot(
                    FRACTIONS,
                    mean,
                    color=color,
                    linestyle=dashes,
                    marker="o",
                    markersize=2.5,
                    linewidth=1.3,
                    label=name,
                )
            axes.set_title(kind)
            axes.set_xlabel(f"frames {what}, in the order named (%)")
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="0.92")
            axes.set_axisbelow(True)
        panels[0].set_ylabel("probability of the prediction")
        panels[0].set_ylim(bottom=0)
        panels[1].legend(frameon=False, fontsize=7)
        figure.suptitle(f"mean of {len(found.clip_ids)} clips", fontsize=8)
        save(figure, path)


def _most_frequent(summary: Summary) -> Sequence[GlossSummary]:
    kept = sorted(summary.glosses, key=lambda one: -one.clips)[:MAX_GLOSSES]
    return [one for one in summary.glosses if one in kept]
