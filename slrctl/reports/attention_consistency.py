"""The consistency panel: both ways of reading between the hands, and where they disagree."""

import math
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from slrctl.reports.attention_figures import (
    HEAT,
    PAGE_WIDTH,
    STYLE,
    draw_map,
    name_clip,
    save,
    unit,
)
from slrctl.reports.attention_scale import Scale, relative, scale_for
from slrctl.reports.hand_strips import STRIP, draw_left_strip, draw_right_strip
from slrctl.reports.part_names import DIVERGENCES
from slrctl.settings import CMCLSettings
from slrctl.studies.inspection.measures import MeasuredClip, compared_distributions
from slrctl.studies.inspection.record import AttentionMap

DIFFERENCE = "PuOr_r"  # orange where the way there is stronger; safe for the colour-blind

# In inches. The left hand's strip stands left of the first panel of the first row.
_SIDE, _MARGIN, _TITLE, _BELOW = 1.55, 0.5, 0.25, 0.45
_LEFT = _MARGIN + STRIP + 0.1
_COLUMNS = (_LEFT, _LEFT + _SIDE + 0.12, _LEFT + 2 * _SIDE + 1.0)
_HEAD = 0.45


class _Row(NamedTuple):
    """Both distributions of one head or of their mean, and how far they diverge."""

    title: str
    there: Float[np.ndarray, "T T"]
    back: Float[np.ndarray, "T T"]
    divergence: float


def draw_consistency(measured: MeasuredClip, cmcl: CMCLSettings, path: Path) -> None:
    """Draw what CMCL compares: left to right, right to left read backwards, their difference.

    The first row has the heads averaged, as in the loss, and beside it the frames of each hand that
    the other attends to most; the others show one head each. All panels have the left hand's frames
    down and the right hand's across, rows that sum to 1, and the temperature of the loss.
    """
    inspected, _ = measured
    there = inspected.fusion["left_to_right"]
    rows = _rows(measured, cmcl.temperature)
    height = _HEAD + STRIP + 0.1 + len(rows) * (_TITLE + _SIDE + _BELOW)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_WIDTH, height))
        top = _HEAD
        for number, row in enumerate(rows):
            top += _TITLE
            panels = [_axes(figure, left, top, _SIDE, _SIDE) for left in _COLUMNS]
            _draw_row(figure, panels, row, there, top, DIVERGENCES[cmcl.divergence])
            if number == 0:
                draw_left_strip(figure, panels[0], inspected)
                draw_right_strip(figure, panels[0], inspected)
                top += STRIP + 0.1
            top += _SIDE + _BELOW
        softened = "" if cmcl.temperature == 1 else f", temperature {cmcl.temperature:g}"
        name_clip(figure, inspected, f"consistency of the hands{softened}")
        save(figure, path)


def _rows(measured: MeasuredClip, temperature: float) -> list[_Row]:
    measures, fusion = measured.measures, measured.inspected.fusion
    there, back = fusion["left_to_right"], fusion["right_to_left"]
    heads = [
        (f"head {head + 1}", there.weights[head], back.weights[head], float(divergence))
        for head, divergence in enumerate(measures.head_divergence)
    ]
    rows = []
    for title, forth, reverse, divergence in [
        ("heads averaged", there.mean, back.mean, measures.divergence),
        *heads,
    ]:
        ahead, backwards = compared_distributions(forth, reverse, there.keys_count, temperature)
        rows.append(_Row(title, relative(there, ahead), relative(there, backwards), divergence))
    return rows


def _draw_row(
    figure: Figure, panels: list[Axes], row: _Row, found: AttentionMap, top: float, name: str
) -> None:
    scale = scale_for([row.there, row.back])
    difference = row.there - row.back
    known = np.abs(difference[np.isfinite(difference)])
    largest = float(known.max()) if len(known) and known.max() > 0 else 1.0
    around_zero = Scale(-largest, largest)
    draw_map(panels[0], row.there, scale, found)
    draw_map(panels[1], row.back, scale, found)
    draw_map(panels[2], difference, around_zero, found, palette=DIFFERENCE)
    for axes in panels:
        axes.set_xlabel("right hand (frame)")
        axes.set_ylabel("left hand (frame)")
    for axes in panels[1:]:  # the first one's label is for all three, and bars stand in between
        axes.set_ylabel("")
    panels[1].tick_params(labelleft=False)
    number = "-" if math.isnan(row.divergence) else f"{row.divergence:.3g} nats"
    panels[0].set_title(f"{row.title}: left reads right", fontsize=7.5)
    panels[1].set_title("right reads left, backwards", fontsize=7.5)
    panels[2].set_title(f"difference, {name} {number}", fontsize=7.5)
    _bar(figure, _COLUMNS[1], top, scale, HEAT, unit(scale))
    _bar(figure, _COLUMNS[2], top, around_zero, DIFFERENCE, "first minus second")


def _bar(figure: Figure, left: float, top: float, scale: Scale, palette: str, label: str) -> None:
    place = _axes(figure, left + _SIDE + 0.06, top, 0.07, _SIDE)
    bar = figure.colorbar(ScalarMappable(Normalize(*scale), colormaps[palette]), cax=place)
    bar.set_label(label, fontsize=6.5)
    place.tick_params(labelsize=6)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the upper left corner."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / whole_width,
            1 - (top + height) / whole_height,
            width / whole_width,
            height / whole_height,
        )
    )
