"""Clips as strips of frames side by side: one in a picture, or many on sheets."""

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from slrctl.core.clip import Clip
from slrctl.core.data.formats.reading import count_of
from slrctl.engine.files import replacing
from slrctl.reports.gloss_labels import available_families, drawn_text
from slrctl.reports.skeletons import (
    PARTS,
    draw_presence,
    draw_skeleton,
    shown_frames,
    window_of,
)

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
