"""A clip as a strip of frames side by side, for a page."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from slrctl.core.clip import Clip
from slrctl.engine.files import replacing
from slrctl.reports.gloss_labels import available_families, gloss_labels
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


def write_title(figure: Figure, clip: Clip, top: float, *, with_facts: bool = True) -> None:
    families = available_families()
    title, clip_id = gloss_labels([clip.gloss, clip.clip_id], families)
    figure.text(0.01, top, title, va="top", fontsize=10, family=families, parse_math=False)
    if with_facts:
        rate = f", {clip.fps:g} frames a second" if clip.fps else ""
        facts = f"{clip_id}: {clip.num_frames} frames{rate}"
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
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DOTS_PER_INCH)
