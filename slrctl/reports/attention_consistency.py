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
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from slrctl.reports.attention_figures import (
    DIVERGENCES,
    HEAT,
    PAGE_WIDTH,
    STYLE,
    Scale,
    draw_map,
    name_clip,
    relative,
    save,
    scale_for,
    unit,
)
from slrctl.reports.skeletons import HANDS, Part, window_of
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import MeasuredClip, compared_distributions
from slrctl.studies.attention.record import AttentionMap, InspectedClip

NUM_SHOWN = 4
STRIP = 0.62  # inches a strip takes beside its axis
_LEADER = 0.16  # inches between a hand and the axis
_LEFT_HAND, _RIGHT_HAND = HANDS


def most_attended(found: AttentionMap, count: int = NUM_SHOWN) -> list[int]:
    """The frames read most, the mean over the reader's frames, in order of time.

    Frames next to a chosen one look like it, so those within a tenth of the clip are passed over.
    """
    received = np.where(found.keys_count, found.mean[found.rows_count].sum(axis=0), -np.inf)
    apart = max(1, len(received) // 10)
    chosen: list[int] = []
    for frame in np.argsort(-received, kind="stable").tolist():
        if np.isfinite(received[frame]) and all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
        if len(chosen) == count:
            break
    return sorted(chosen)


def draw_left_strip(figure: Figure, axes: Axes, inspected: InspectedClip) -> None:
    """Draw the left hand's frames down the left side of a map."""
    frames = most_attended(inspected.fusion["right_to_left"])
    width, height = figure.get_size_inches()
    box = axes.get_position()
    side = min((STRIP - _LEADER) / height, box.height / NUM_SHOWN)
    for place, frame in _spread(frames, len(inspected.clip.landmarks)):
        hand = figure.add_axes(
            (
                box.x0 - STRIP / width,
                box.y1 - place * box.height - side / 2,
                (STRIP - _LEADER) / width,
                side,
            )
        )
        _draw_hand(hand, inspected, frame, _LEFT_HAND, (-0.05, 0.5))
        _lead(figure, hand, (1.0, 0.5), axes, (0.5, frame + 1.0))
    axes.set_yticks([frame + 1 for frame in frames], [""] * len(frames))
    axes.yaxis.set_label_coords(-(STRIP + 0.2) / (box.width * width), 0.5)


def draw_right_strip(figure: Figure, axes: Axes, inspected: InspectedClip) -> None:
    """Draw the right hand's frames along the lower side of a map."""
    frames = most_attended(inspected.fusion["left_to_right"])
    width, height = figure.get_size_inches()
    box = axes.get_position()
    side = min((STRIP - _LEADER) / width, box.width / NUM_SHOWN)
    num_frames = len(inspected.clip.landmarks)
    for place, frame in _spread(frames, num_frames):
        hand = figure.add_axes(
            (
                box.x0 + place * box.width - side / 2,
                box.y0 - STRIP / height,
                side,
                (STRIP - _LEADER) / height,
            )
        )
        _draw_hand(hand, inspected, frame, _RIGHT_HAND, (0.5, -0.05))
        _lead(figure, hand, (0.5, 1.0), axes, (frame + 1.0, num_frames + 0.5))
    axes.set_xticks([frame + 1 for frame in frames], [""] * len(frames))
    axes.xaxis.set_label_coords(0.5, -(STRIP + 0.16) / (box.height * height))


def _spread(frames: list[int], num_frames: int) -> list[tuple[float, int]]:
    """Where along the axis (0 to 1) each frame's hand is drawn: in order, without overlap."""
    least = 1 / NUM_SHOWN
    places: list[float] = []
    for frame in frames:
        wish = (frame + 0.5) / num_frames
        places.append(max(wish, places[-1] + least if places else least / 2))
    for number in reversed(range(len(places))):
        latest = 1 - least / 2 if number + 1 == len(places) else places[number + 1] - least
        places[number] = min(places[number], latest)
    return list(zip(places, frames, strict=True))


def _draw_hand(
    axes: Axes, inspected: InspectedClip, frame: int, part: Part, label: tuple[float, float]
) -> None:
    aspect = inspected.clip.aspect
    points = inspected.clip.landmarks[frame].astype(np.float64) * [aspect, 1.0]
    is_there = np.isfinite(points).all(axis=1)
    bones = [points[[i, j]] for i, j in part.edges if is_there[i] and is_there[j]]
    axes.add_collection(LineCollection(bones, colors=part.color, linewidths=0.7))
    window = window_of(_only(inspected.clip.landmarks[frame], part)[None], aspect)
    axes.set_xlim(window.left, window.right)
    axes.set_ylim(window.bottom, window.top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.text(
        *(*label, str(frame + 1)),
        transform=axes.transAxes,
        fontsize=5.5,
        ha="right" if label[0] < 0 else "center",
        va="top" if label[1] < 0 else "center",
        color="0.25",
    )


def _only(frame: Float[np.ndarray, "54 2"], part: Part) -> Float[np.ndarray, "54 2"]:
    """The frame without the landmarks of other parts."""
    alone = np.full_like(frame, np.nan)
    alone[part.landmarks] = frame[part.landmarks]
    return alone


def _lead(
    figure: Figure,
    hand: Axes,
    start: tuple[float, float],
    axes: Axes,
    end: tuple[float, float],
) -> None:
    """A thin line from a hand to its frame on the axis."""
    line = ConnectionPatch(
        start,
        end,
        coordsA=hand.transAxes,
        coordsB=axes.transData,
        color="0.45",
        linewidth=0.5,
    )
    figure.add_artist(line)


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
