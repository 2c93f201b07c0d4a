"""Figures about attention over a data set: mean maps and lags by gloss, curves of faithfulness."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from slrctl.reports.attention_figures import HEAT, PAGE_WIDTH, STYLE, scale_for, unit
from slrctl.reports.figures import BLUE, COLORS, CURVES, gloss_labels, saved_figure
from slrctl.studies.attention.faithfulness import FRACTIONS, HANDS, RANDOM, Faithfulness
from slrctl.studies.attention.measures import CLEAR
from slrctl.studies.attention.summary import GlossSummary

MAX_GLOSSES = 24
"""Glosses in a figure, those with most clips; the npz has all."""
_DASHES = ("-", "--", "-.", (0, (3, 1, 1, 1)), (0, (5, 1)))
_CONTROLS = {RANDOM: ("black", ":"), HANDS: ("0.5", ":")}


def _most_frequent(glosses: Sequence[GlossSummary]) -> list[GlossSummary]:
    """Choose the glosses with most clips, in their order."""
    kept = sorted(glosses, key=lambda one: -one.clips)[:MAX_GLOSSES]
    return [one for one in glosses if one in kept]


def draw_mean_maps(glosses: Sequence[GlossSummary], *paths: Path) -> None:
    """Draw each gloss's mean maps, left to right and right to left, and how sure they are.

    A black dot marks cells whose 95 % interval leaves out uniform attention. Each gloss has a map.
    """
    shown = _most_frequent(glosses)
    across = min(4, len(shown))
    down = math.ceil(len(shown) / across)
    scale = scale_for([one.mean for one in shown])
    size = (PAGE_WIDTH, 0.7 + 1.15 * down)
    with saved_figure(size, *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(down, 2 * across, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], facecolor="0.8", visible=False)
        labels = gloss_labels([one.gloss for one in shown])
        for one, label, pair in zip(shown, labels, grid.reshape(-1, 2), strict=False):
            pair[0].set_title(f"{label} ({one.clips})", fontsize=6, loc="left")
            for map_number, direction in enumerate(("L reads R", "R reads L")):
                axes = pair[map_number]
                axes.set_visible(True)
                axes.imshow(one.mean[map_number], cmap=HEAT, norm=scale)
                is_sure = (one.low[map_number] > 1) | (one.high[map_number] < 1)
                rows, columns = np.nonzero(is_sure)
                axes.plot(columns, rows, "s", color="black", markersize=0.6, markeredgewidth=0)
                axes.set_xlabel(direction, fontsize=5.5, labelpad=1)
        bar = figure.colorbar(grid[0, 0].images[0], ax=grid, fraction=0.02, pad=0.01)
        bar.set_label(unit(scale), fontsize=7)
        figure.suptitle(
            "mean attention between the hands, start of the clip to its end (reader down)\n"
            "black dots: the 95 % interval leaves out uniform attention"
        )


def draw_lags(glosses: Sequence[GlossSummary], *paths: Path) -> None:
    """Draw the lags read off the maps of each gloss's clips, as large as many have them."""
    shown = _most_frequent(glosses)
    size = (PAGE_WIDTH, 0.8 + 0.22 * max(len(shown), 2))
    with saved_figure(size, *paths, style=STYLE) as figure:
        axes = figure.subplots()
        for row, one in enumerate(shown):
            lags, is_clear = np.array(one.lags), np.array(one.strengths) >= CLEAR
            for chosen, face in ((lags[~is_clear], "none"), (lags[is_clear], BLUE)):
                places, counts = np.unique(chosen, return_counts=True)
                areas, rows = 3 + 80 * counts / len(lags), np.full(len(places), row)
                axes.scatter(places, rows, areas, facecolor=face, edgecolor=BLUE, linewidth=0.6)
            axes.plot(np.median(lags), row, "|", color="black", markersize=9, markeredgewidth=1.2)
        axes.axvline(0, color="0.6", linewidth=0.7, zorder=0)
        axes.set_yticks(range(len(shown)), gloss_labels([one.gloss for one in shown]), fontsize=6)
        axes.invert_yaxis()
        axes.set_xlabel("lag of the right hand behind the left, read off the maps (frames)")
        axes.set_title(
            "area: share of the gloss's clips; bar: median; "
            f"hollow: noise, the diagonal gets under {CLEAR:g} times uniform"
        )


def draw_faithfulness(found: Faithfulness, *paths: Path) -> None:
    """Draw the mean deletion and insertion curve of every order."""
    with saved_figure((PAGE_WIDTH, 2.9), *paths, style={**CURVES, **STYLE}) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind, change in zip(
            panels, ("deletion", "insertion"), ("removed", "put in"), strict=True
        ):
            looks = zip(COLORS, _DASHES, strict=False)
            for name, curves in found.curves.items():
                color, dashes = _CONTROLS.get(name) or next(looks)
                axes.plot(
                    FRACTIONS,
                    getattr(curves, kind).mean(axis=0),
                    color=color,
                    linestyle=dashes,
                    marker="o",
                    markersize=2.5,
                    linewidth=1.3,
                    label=name,
                )
            axes.set_title(kind)
            axes.set_xlabel(f"frames {change}, in the order named (%)")
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        panels[0].set_ylabel("probability of the prediction")
        panels[0].set_ylim(bottom=0)
        panels[1].legend()
        figure.suptitle(f"mean of {len(found.clip_ids)} clips")
