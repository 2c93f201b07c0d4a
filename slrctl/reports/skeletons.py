"""How landmarks are drawn in every picture: one frame, and a bar that says when hands are there.

Left hand, right hand and body have the same colours in every picture, safe for the colour-blind.
A ring stands at the wrist of a hand that was not detected. Drawn as filmed: y down, true aspect, so
the signer's left is mostly on the right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.reports.curve_panels import BLUE, VERMILLION

BODY_COLOR, LEFT_COLOR, RIGHT_COLOR = "#8C8C8C", BLUE, VERMILLION


# A landmark is stray if it lies further than this many times the spread of the middle half of the
# body's landmarks outside that half.
_FENCE = 4.0


class Part(NamedTuple):
    """How a part of the skeleton is drawn; `wrist` is where the body ends and a hand begins."""

    name: str
    landmarks: slice
    edges: tuple[tuple[int, int], ...]
    color: str
    line_width: float
    wrist: int | None = None


PARTS = (
    Part("body", skeleton.BODY, skeleton.BODY_EDGES, BODY_COLOR, 1.4),
    Part(
        "left hand",
        skeleton.LEFT_HAND,
        skeleton.LEFT_HAND_EDGES,
        LEFT_COLOR,
        0.9,
        skeleton.LEFT_WRIST,
    ),
    Part(
        "right hand",
        skeleton.RIGHT_HAND,
        skeleton.RIGHT_HAND_EDGES,
        RIGHT_COLOR,
        0.9,
        skeleton.RIGHT_WRIST,
    ),
)
HANDS = PARTS[1:]


class Window(NamedTuple):
    """The part of the image a picture shows, in image heights: x is times the aspect."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def ratio(self) -> float:
        """Width over height."""
        return (self.right - self.left) / (self.bottom - self.top)


def window_of(
    landmarks: Float32[np.ndarray, "T 54 2"], aspect: float, *, margin: float = 0.06
) -> Window:
    """What has to be seen of a clip: all of it but for stray landmarks, with a margin around."""
    image = landmarks * np.array([aspect, 1.0], np.float32)
    points, body = _present(image), _present(image[:, skeleton.BODY])
    if not len(points):
        return Window(0.0, aspect, 0.0, 1.0)
    # Measured by the body: the many landmarks of a hand lie close together.
    quarter, three_quarters = np.quantile(body if len(body) else points, [0.25, 0.75], axis=0)
    fence = _FENCE * max(float((three_quarters - quarter).max()), 0.05)
    is_near = (points >= quarter - fence) & (points <= three_quarters + fence)
    near = points[is_near.all(axis=1)] if is_near.all(axis=1).any() else points
    low, high = near.min(axis=0), near.max(axis=0)
    middle, longer = (low + high) / 2, max(float((high - low).max()), 0.1)
    # A single point has no extent, and a picture much taller or wider than this is hard to place.
    half = np.maximum((high - low) / 2, longer / 5) + margin * longer
    (left, top), (right, bottom) = (middle - half).tolist(), (middle + half).tolist()
    return Window(left, right, top, bottom)


def _present(landmarks: Float32[np.ndarray, "T V 2"]) -> Float32[np.ndarray, "N 2"]:
    points = landmarks.reshape(-1, 2)
    return points[~np.asarray(np.isnan(points).any(axis=1))]


def shown_frames(num_frames: int, num_panels: int) -> Int64[np.ndarray, " P"]:
    """Frames spread evenly from the first to the last; all of them if there are not that many."""
    count = min(num_panels, num_frames)
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def hand_presence(landmarks: Float32[np.ndarray, "T 54 2"]) -> Bool[np.ndarray, "2 T"]:
    """In which frames at least one landmark of the left and of the right hand was detected."""
    is_detected = ~np.asarray(np.isnan(landmarks).any(axis=-1))
    return np.stack([is_detected[:, hand.landmarks].any(axis=1) for hand in HANDS])


def draw_skeleton(
    axes: Axes,
    frame: Float[np.ndarray, "54 2"],
    *,
    aspect: float = 1.0,
    window: Window | None = None,
    scale: float = 1.0,
) -> None:
    """Draw one frame: lines between the landmarks that are present, dots on them, rings for hands.

    Args:
        axes: where to draw; ticks and frame are removed.
        frame: x and y divided by the size of the image, NaN where missing.
        aspect: width / height of the image.
        window: what to show, the same for all frames of a clip; around this frame if absent.
        scale: factor of line widths and dots, for pictures larger or smaller than a panel.
    """
    points = np.asarray(frame, np.float64) * [aspect, 1.0]
    is_present = ~np.asarray(np.isnan(points).any(axis=1))
    for part in PARTS:
        edges = [points[[i, j]] for i, j in part.edges if is_present[i] and is_present[j]]
        width = scale * part.line_width
        axes.add_collection(
            LineCollection(edges, colors=part.color, linewidths=width, capstyle="round")
        )
        dots = points[part.landmarks][is_present[part.landmarks]]
        axes.scatter(*dots.T, s=(1.6 * width) ** 2, color=part.color, linewidths=0, zorder=2)
        if part.wrist is not None and not len(dots) and is_present[part.wrist]:
            axes.scatter(
                *points[part.wrist],
                s=(5 * scale) ** 2,
                facecolors="white",
                edgecolors=part.color,
                linewidths=0.8 * scale,
                zorder=3,
            )
    if not is_present.any():
        axes.text(
            *(0.5, 0.5, "no landmarks"),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=6 * scale,
            color="0.4",
        )
    shown = window or window_of(np.asarray(frame, np.float32)[None], aspect)
    axes.set_xlim(shown.left, shown.right)
    axes.set_ylim(shown.bottom, shown.top)  # y points down
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_presence(axes: Axes, clip: Clip, frames: Sequence[int]) -> None:
    """Draw a bar for each hand, filled in the frames in which it is there; mark `frames`."""
    for row, (hand, is_there) in enumerate(zip(HANDS, hand_presence(clip.landmarks), strict=True)):
        axes.axhspan(row - 0.36, row + 0.36, color="0.92", linewidth=0)
        starts = np.flatnonzero(np.diff(is_there, prepend=False) & is_there)
        ends = np.flatnonzero(np.diff(is_there, append=False) & is_there)
        spans = [
            (first - 0.5, last - first + 1.0)
            for first, last in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        axes.broken_barh(spans, (row - 0.36, 0.72), color=hand.color, linewidth=0)
    axes.set_xlim(-0.5, clip.num_frames - 0.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_yticks([0, 1], [hand.name for hand in HANDS], fontsize=6)
    axes.set_xticks(list(frames), [str(frame + 1) for frame in frames], fontsize=6)
    axes.tick_params(length=2, width=0.5, pad=1.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
