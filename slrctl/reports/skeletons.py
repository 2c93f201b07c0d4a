"""How landmarks are drawn in every picture: one frame, and a bar that says when hands are there.

Left hand, right hand and body have the same colours in every picture, safe for the colour-blind.
A ring stands at the wrist of a hand that was not detected. Drawn as filmed: y down, true aspect, so
the signer's left is mostly on the right.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.reading import count_of
from slrctl.files import replacing
from slrctl.reports.figures import BLUE, VERMILLION, available_families, drawn_text

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


NUM_PANELS = 8
"""Frames in a strip, unless the clip is shorter or another number is asked for."""

_DOTS_PER_INCH = 200
_WIDTH = 7.2  # inches: the text width of most journals
_HEAD, _ROW_HEIGHT, _ROWS = 0.28, 1.02, 9  # of a sheet, which fits a page
_LONGEST_NAME = 40


def write_title(figure: Figure, clip: Clip, top: float, *, with_facts: bool = True) -> None:
    families = available_families()
    title, clip_id = (drawn_text(text, families) for text in (clip.gloss, clip.clip_id))
    figure.text(0.01, top, title, va="top", fontsize=10, family=families, parse_math=False)
    if with_facts:
        rate = f", {clip.fps:g} frames a second" if clip.fps else ""
        facts = f"{clip_id}: {count_of(clip.num_frames, 'frame')}{rate}"
        figure.text(
            *(0.01, top - 0.2 / figure.get_figheight(), facts),
            va="top",
            fontsize=6,
            color="0.35",
            family=families,
            parse_math=False,
        )


def add_legend(figure: Figure, top: float) -> None:
    lines = [Line2D([], [], color=part.color, linewidth=2, label=part.name) for part in PARTS]
    ring = Line2D(
        *([], []),
        linestyle="none",
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor="0.3",
        label="hand not detected",
    )
    figure.legend(
        handles=[*lines, ring],
        loc="upper right",
        bbox_to_anchor=(1.0, top),
        ncols=4,
        frameon=False,
        fontsize=6.5,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def draw_strip(clip: Clip, path: Path, *, num_panels: int = NUM_PANELS) -> None:
    """Draw frames of a clip side by side, evenly spaced from the first to the last.

    Args:
        clip: not prepared: coordinates of the image.
        path: the picture to write; its suffix chooses the format.
        num_panels: how many frames; all of them if the clip is shorter.
    """
    frames = shown_frames(clip.num_frames, num_panels)
    window = window_of(clip.landmarks, clip.aspect)
    share = 1 / max(len(frames), 3)
    panels = share * _WIDTH / window.ratio
    height = panels + 1.02
    figure = Figure(figsize=(_WIDTH, height))
    for place, number in enumerate(frames.tolist()):
        axes = figure.add_axes((place * share, 0.64 / height, share, panels / height))
        draw_skeleton(axes, clip.landmarks[number], aspect=clip.aspect, window=window)
        axes.set_title(f"frame {number + 1}", y=0, va="top", fontsize=6, color="0.35", pad=-1)
    bar = figure.add_axes((0.1, 0.17 / height, 0.88, 0.26 / height))
    draw_presence(bar, clip, frames.tolist())
    write_title(figure, clip, 1 - 0.05 / height)
    add_legend(figure, 1 - 0.02 / height)
    _save(figure, path)


def strip_name(number: int, gloss: str) -> str:
    """A file name any system takes: the number keeps apart what letters would not."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", gloss).strip("-")[:_LONGEST_NAME]
    return f"{number:03d}-{plain}.png" if plain else f"{number:03d}.png"


def draw_sheets(clips: Sequence[Clip], folder: Path, *, num_panels: int = NUM_PANELS) -> list[Path]:
    """Draw a strip a row, nine to a page, `sheet-1.png` the first of them.

    Returns:
        The pages, in their order.
    """
    pages = []
    for first in range(0, len(clips), _ROWS):
        path = folder / f"sheet-{first // _ROWS + 1}.png"
        _draw_sheet(clips[first : first + _ROWS], path, num_panels)
        pages.append(path)
    return pages


def _draw_sheet(clips: Sequence[Clip], path: Path, num_panels: int) -> None:
    height = _HEAD + _ROW_HEIGHT * len(clips)
    figure = Figure(figsize=(_WIDTH, height))
    share = 1 / num_panels
    for row, clip in enumerate(clips):
        top = 1 - (_HEAD + row * _ROW_HEIGHT) / height
        window = window_of(clip.landmarks, clip.aspect)
        for place, number in enumerate(shown_frames(clip.num_frames, num_panels).tolist()):
            axes = figure.add_axes(
                (
                    place * share,
                    top - 0.97 * _ROW_HEIGHT / height,
                    share,
                    0.76 * _ROW_HEIGHT / height,
                )
            )
            draw_skeleton(
                axes, clip.landmarks[number], aspect=clip.aspect, window=window, scale=0.8
            )
        _write_row_title(figure, clip, top)
    add_legend(figure, 1.0)
    _save(figure, path)


def _write_row_title(figure: Figure, clip: Clip, top: float) -> None:
    families = available_families()
    title = drawn_text(clip.gloss, families)
    figure.add_artist(Line2D([0, 1], [top, top], color="0.85", linewidth=0.6))
    figure.text(
        *(0.01, top - 0.04 / figure.get_figheight(), title),
        va="top",
        fontsize=8,
        family=families,
        parse_math=False,
    )
    figure.text(
        *(0.99, top - 0.04 / figure.get_figheight(), count_of(clip.num_frames, "frame")),
        va="top",
        ha="right",
        fontsize=6,
        color="0.35",
    )


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DOTS_PER_INCH)


USUAL_FPS = 25.0
"""Speed of an animation where the clip does not say how fast it was filmed."""

_SHORTEST_SHOWN = 20  # milliseconds; browsers show shorter ones at a tenth of a second
_HEIGHT = 3.4  # inches


def _durations(num_frames: int, fps: float) -> list[int]:
    """Milliseconds of each frame; GIF has hundredths of a second, and rounding must not add up."""
    times = np.round(np.arange(num_frames + 1) * 100 / fps) * 10
    return np.maximum(np.diff(times), _SHORTEST_SHOWN).astype(int).tolist()


def draw_animation(clip: Clip, path: Path, *, fps: float | None = None) -> None:
    """Draw a clip as an animated GIF that repeats.

    Args:
        clip: not prepared: coordinates of the image.
        path: the GIF to write.
        fps: frames a second; those of the clip if absent, else 25. Above 50, frames are shown for
            a fiftieth of a second all the same, as browsers will not go faster.
    """
    window = window_of(clip.landmarks, clip.aspect)
    figure = Figure(figsize=(max(_HEIGHT * window.ratio, 2.6), _HEIGHT + 0.75), dpi=120)
    canvas = FigureCanvasAgg(figure)
    pictures = []
    for number, frame in enumerate(clip.landmarks):
        figure.clear()
        total = figure.get_figheight()
        axes = figure.add_axes((0, 0.4 / total, 1, _HEIGHT / total))
        draw_skeleton(axes, frame, aspect=clip.aspect, window=window, scale=1.6)
        bar = figure.add_axes((0.2, 0.16 / total, 0.76, 0.22 / total))
        draw_presence(bar, clip, [number])
        write_title(figure, clip, 1 - 0.06 / total, with_facts=False)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    # One palette for all frames, or colours would flicker; few enough that no dithering is needed.
    palette = pictures[len(pictures) // 2].quantize(64)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with replacing(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=_durations(len(frames), fps or clip.fps or USUAL_FPS),
            loop=0,
            optimize=False,
        )
