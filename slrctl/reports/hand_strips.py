"""The frames of a hand that the other hand attends to most, drawn along an axis of a map."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from slrctl.reports.skeletons import HANDS, Part, window_of
from slrctl.studies.inspection.record import AttentionMap, InspectedClip

NUM_SHOWN = 4
STRIP = 0.62  # inches a strip takes beside its axis
_LEADER = 0.16  # inches between a hand and the axis
_LEFT, _RIGHT = HANDS


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
        _draw_hand(hand, inspected, frame, _LEFT, (-0.05, 0.5))
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
        _draw_hand(hand, inspected, frame, _RIGHT, (0.5, -0.05))
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
