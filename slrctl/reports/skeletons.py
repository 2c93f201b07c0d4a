"""Pictures of landmarks: one frame, strips and sheets of frames, an animation.

Streams have the same colours in every picture, safe for the colour-blind. A ring stands at the
wrist of a hand that was not detected. Drawn as filmed: y down, true aspect, so the signer's left is
mostly on the right.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from PIL import Image

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.errors import count_of
from slrctl.files import replacing
from slrctl.reports.figures import BLUE, VERMILLION, Style, base_style, drawn_text, saved_figure


class DrawnStream(NamedTuple):
    """Look of a stream; at `wrist` the body ends and a hand begins."""

    name: str
    landmarks: slice
    edges: tuple[tuple[int, int], ...]
    color: str
    line_width: float = 0.9
    wrist: int | None = None


BODY = DrawnStream("body", skeleton.BODY, skeleton.BODY_EDGES, "#8C8C8C", line_width=1.4)
LEFT_HAND = DrawnStream(
    "left hand", skeleton.LEFT_HAND, skeleton.LEFT_HAND_EDGES, BLUE, wrist=skeleton.LEFT_WRIST
)
RIGHT_HAND = DrawnStream(
    *("right hand", skeleton.RIGHT_HAND, skeleton.RIGHT_HAND_EDGES, VERMILLION),
    wrist=skeleton.RIGHT_WRIST,
)
STREAMS = (BODY, LEFT_HAND, RIGHT_HAND)


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


# A landmark is stray if it lies further than this many times the spread of the middle half of the
# body's landmarks outside that half.
_FENCE = 4.0
_MARGIN = 0.06  # around a window, in its longer sides


def window_of(landmarks: Float32[np.ndarray, "T 54 2"], aspect: float) -> Window:
    """Find what has to be seen of a clip: all but stray landmarks, with a margin around."""
    image = landmarks * np.array([aspect, 1.0], np.float32)
    points, body = (each[is_detected(each)] for each in (image, image[:, skeleton.BODY]))
    if not len(points):
        return Window(0.0, aspect, 0.0, 1.0)
    # Measured by the body: the many landmarks of a hand lie close together.
    quarter, three_quarters = np.quantile(body if len(body) else points, [0.25, 0.75], axis=0)
    fence = _FENCE * max(float((three_quarters - quarter).max()), 0.05)
    is_near = ((points >= quarter - fence) & (points <= three_quarters + fence)).all(axis=1)
    near = points[is_near] if is_near.any() else points
    low, high = near.min(axis=0), near.max(axis=0)
    middle, longer = (low + high) / 2, max(float((high - low).max()), 0.1)
    # A single point has no extent, and a picture much taller or wider than this is hard to place.
    half = np.maximum((high - low) / 2, longer / 5) + _MARGIN * longer
    (left, top), (right, bottom) = (middle - half).tolist(), (middle + half).tolist()
    return Window(left, right, top, bottom)


def is_detected(landmarks: Float[np.ndarray, "*axes 2"]) -> Bool[np.ndarray, "*axes"]:
    """Tell which landmarks have coordinates."""
    return np.isfinite(landmarks.sum(axis=-1))


def shown_frames(num_frames: int, num_panels: int) -> Int64[np.ndarray, " P"]:
    """Spread frames evenly from the first to the last; all of them if there are not that many."""
    count = min(num_panels, num_frames)
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def hand_presence(landmarks: Float32[np.ndarray, "T 54 2"]) -> Bool[np.ndarray, "2 T"]:
    """Tell in which frames a landmark of the left and of the right hand was detected."""
    hands = (landmarks[:, hand.landmarks] for hand in (LEFT_HAND, RIGHT_HAND))
    return np.stack([is_detected(hand).any(axis=-1) for hand in hands])


def draw_bones(
    axes: Axes, points: Float[np.ndarray, "54 2"], stream: DrawnStream, line_width: float
) -> None:
    """Draw the lines between landmarks of a stream that are present."""
    is_present = is_detected(points)
    bones = [points[[i, j]] for i, j in stream.edges if is_present[i] and is_present[j]]
    axes.add_collection(
        LineCollection(bones, colors=stream.color, linewidths=line_width, capstyle="round")
    )


def frame_axes(axes: Axes, window: Window) -> None:
    """Show a part of the image, y down, without ticks and frame."""
    axes.set_xlim(window.left, window.right)
    axes.set_ylim(window.bottom, window.top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_skeleton(
    axes: Axes,
    frame: Float[np.ndarray, "54 2"],
    *,
    aspect: float = 1.0,
    window: Window | None = None,
    scale: float = 1.0,
) -> None:
    """Draw one frame: lines between the landmarks that are present, dots on them, rings for hands.

    `window` is around this frame if absent; `scale` is a factor of line widths and dots.
    """
    points = np.asarray(frame, np.float64) * [aspect, 1.0]
    is_present = is_detected(points)
    for stream in STREAMS:
        width, color = scale * stream.line_width, stream.color
        draw_bones(axes, points, stream, width)
        dots = points[stream.landmarks][is_present[stream.landmarks]]
        axes.scatter(*dots.T, s=(1.6 * width) ** 2, color=color, linewidths=0, zorder=2)
        if stream.wrist is not None and not len(dots) and is_present[stream.wrist]:
            x, y = points[stream.wrist]
            ring = {"facecolors": "white", "edgecolors": color, "linewidths": 0.8 * scale}
            axes.scatter(x, y, s=(5 * scale) ** 2, zorder=3, **ring)
    if not is_present.any():
        style = {"ha": "center", "va": "center", "fontsize": 6 * scale, "color": "0.4"}
        axes.text(0.5, 0.5, "no landmarks", transform=axes.transAxes, **style)
    frame_axes(axes, window or window_of(np.asarray(frame, np.float32)[None], aspect))


def draw_presence(axes: Axes, clip: Clip, frames: Sequence[int]) -> None:
    """Draw a bar for each hand, filled in the frames in which it was detected; mark `frames`."""
    presence = zip((LEFT_HAND, RIGHT_HAND), hand_presence(clip.landmarks), strict=True)
    for row, (hand, is_present) in enumerate(presence):
        axes.axhspan(row - 0.36, row + 0.36, color="0.92", linewidth=0)
        runs = np.ma.clump_masked(np.ma.array(is_present, mask=is_present))
        spans = [(run.start - 0.5, run.stop - run.start) for run in runs]
        axes.broken_barh(spans, (row - 0.36, 0.72), color=hand.color, linewidth=0)
    axes.set_xlim(-0.5, clip.num_frames - 0.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_yticks([0, 1], [LEFT_HAND.name, RIGHT_HAND.name], fontsize=6)
    axes.set_xticks(frames, [str(frame + 1) for frame in frames], fontsize=6)
    axes.tick_params(length=2, width=0.5, pad=1.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)


NUM_PANELS = 8
"""Frames in a strip, unless the clip is shorter."""

_WIDTH = 7.2  # inches: the text width of most journals
_EXACT_SIZE = {"savefig.bbox": "standard"}


def _draw_frames(
    figure: Figure | SubFigure, clip: Clip, num_panels: int, bottom: float, top: float, scale: float
) -> list[Axes]:
    """Draw frames side by side between two heights, 0 to 1; each has a share of the width."""
    grid = figure.add_gridspec(1, num_panels, left=0, right=1, bottom=bottom, top=top, wspace=0)
    window = window_of(clip.landmarks, clip.aspect)
    panels = []
    for place, number in enumerate(shown_frames(clip.num_frames, num_panels)):
        panels.append(figure.add_subplot(grid[place]))
        draw_skeleton(
            panels[-1], clip.landmarks[number], aspect=clip.aspect, window=window, scale=scale
        )
    return panels


def _add_legend(figure: Figure, top: float) -> None:
    lines = [Line2D([], [], color=each.color, linewidth=2, label=each.name) for each in STREAMS]
    ring = {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "0.3"}
    lines.append(Line2D([], [], linestyle="none", label="hand not detected", **ring))
    space: Style = {"handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0.2}
    look: Style = {"loc": "upper right", "ncols": 4, "frameon": False, "fontsize": 6.5}
    figure.legend(handles=lines, bbox_to_anchor=(1.0, top), **look, **space)


def draw_strip(clip: Clip, path: Path) -> None:
    """Draw frames of a clip, not prepared, side by side; the suffix chooses the format."""
    frames = shown_frames(clip.num_frames, NUM_PANELS).tolist()
    columns = max(len(frames), 3)
    panels = _WIDTH / columns / window_of(clip.landmarks, clip.aspect).ratio
    height = panels + 1.02
    with saved_figure((_WIDTH, height), path, layout=None, style=_EXACT_SIZE) as figure:
        bottom = 0.64 / height
        drawn = _draw_frames(figure, clip, columns, bottom, bottom + panels / height, 1.0)
        for axes, number in zip(drawn, frames, strict=True):
            axes.set_title(f"frame {number + 1}", y=0, va="top", fontsize=6, color="0.35", pad=-1)
        draw_presence(figure.add_axes((0.1, 0.17 / height, 0.88, 0.26 / height)), clip, frames)
        fps = f", {clip.fps:g} frames a second" if clip.fps else ""
        facts = f"{drawn_text(clip.clip_id)}: {count_of(clip.num_frames, 'frame')}{fps}"
        figure.text(0.01, 1 - 0.05 / height, drawn_text(clip.gloss), va="top", fontsize=10)
        figure.text(0.01, 1 - 0.25 / height, facts, va="top", fontsize=6, color="0.35")
        _add_legend(figure, 1 - 0.02 / height)


def strip_name(number: int, gloss: str) -> str:
    """Name a file as any system takes it: the number keeps apart what letters would not."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", gloss).strip("-")[:40]
    return f"{number:03d}-{plain}.png" if plain else f"{number:03d}.png"


_HEAD, _ROW_HEIGHT, _ROWS = 0.28, 1.02, 9  # of a sheet, which fits a page


def draw_sheets(clips: Sequence[Clip], folder: Path) -> list[Path]:
    """Draw a strip a row, nine to a page, and return the pages: `sheet-1.png`, ..."""
    pages = []
    for first in range(0, len(clips), _ROWS):
        shown = clips[first : first + _ROWS]
        pages.append(folder / f"sheet-{first // _ROWS + 1}.png")
        size = (_WIDTH, _HEAD + _ROW_HEIGHT * len(shown))
        with saved_figure(size, pages[-1], layout=None, style=_EXACT_SIZE) as figure:
            heights = [_HEAD, *[_ROW_HEIGHT] * len(shown)]
            _, *rows = figure.subfigures(len(heights), height_ratios=heights, squeeze=False).flat
            for row, clip in zip(rows, shown, strict=True):
                row.add_artist(Line2D([0, 1], [1, 1], color="0.85", linewidth=0.6))
                _draw_frames(row, clip, NUM_PANELS, 0.03, 0.79, 0.8)
                row.text(0.01, 0.96, drawn_text(clip.gloss), va="top", fontsize=8)
                length = count_of(clip.num_frames, "frame")
                row.text(0.99, 0.96, length, va="top", ha="right", fontsize=6, color="0.35")
            _add_legend(figure, 1.0)
    return pages


USUAL_FPS = 25.0
"""Speed of an animation where the clip does not say how fast it was filmed."""

_SHORTEST_SHOWN = 20  # milliseconds; browsers show shorter ones at a tenth of a second
_HEIGHT = 3.4  # inches


def draw_animation(clip: Clip, path: Path, *, fps: float | None = None) -> None:
    """Draw a clip, not prepared, as an animated GIF that repeats.

    Frames a second are those of the clip if absent, else 25; above 50 a frame is shown for a
    fiftieth of a second all the same, as browsers will not go faster.
    """
    window, height = window_of(clip.landmarks, clip.aspect), _HEIGHT + 0.75
    figure = Figure(figsize=(max(_HEIGHT * window.ratio, 2.6), height), dpi=120)
    canvas = FigureCanvasAgg(figure)
    pictures = []
    with rc_context(base_style()):
        for number, frame in enumerate(clip.landmarks):
            figure.clear()
            axes = figure.add_axes((0, 0.4 / height, 1, _HEIGHT / height))
            draw_skeleton(axes, frame, aspect=clip.aspect, window=window, scale=1.6)
            bar = figure.add_axes((0.2, 0.16 / height, 0.76, 0.22 / height))
            draw_presence(bar, clip, [number])
            figure.text(0.01, 1 - 0.06 / height, drawn_text(clip.gloss), va="top", fontsize=10)
            canvas.draw()
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    # One palette for all frames, or colours would flicker; few enough that no dithering is needed.
    palette = pictures[len(pictures) // 2].quantize(64)
    first, *others = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    # GIF has hundredths of a second, and rounding must not add up.
    times = 10 * np.round(np.arange(len(pictures) + 1) * 100 / (fps or clip.fps or USUAL_FPS))
    durations = np.maximum(np.diff(times), _SHORTEST_SHOWN).astype(int).tolist()
    options = {"save_all": True, "append_images": others, "duration": durations, "loop": 0}
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", optimize=False, **options)
