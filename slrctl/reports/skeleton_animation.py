"""A clip as an animated GIF."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from slrctl.core.clip import Clip
from slrctl.engine.files import replacing
from slrctl.reports.skeleton_strips import write_title
from slrctl.reports.skeletons import draw_presence, draw_skeleton, window_of

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
