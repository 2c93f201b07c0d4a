"""Play a clip in the terminal; in a pipe, print a few of its frames."""

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from slrctl.cli.console import print_lines

if TYPE_CHECKING:
    from slrctl.core.clip import Clip

# Lines of a terminal kept free for the title and the prompt.
_LINES_BESIDE = 3
_PIPE_COLUMNS, _PIPE_ROWS, _PIPE_FRAMES = 60, 24, 4


def _play_once(live: Live, clip: "Clip", rate: float) -> None:
    """Show every frame at its time; where the terminal is too slow, frames are left out."""
    started = time.perf_counter()
    for number in range(clip.num_frames):
        ahead = started + number / rate - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1 / rate and number < clip.num_frames - 1:
            continue
        live.update(_picture(live.console, clip, number), refresh=True)
    time.sleep(max(0.0, started + clip.num_frames / rate - time.perf_counter()))


def _picture(console: Console, clip: "Clip", number: int) -> Group:
    from slrctl.reports.skeletons import STREAMS, window_of
    from slrctl.reports.terminal import draw_braille, fit_size

    window = window_of(clip.landmarks, clip.aspect)
    columns, rows = fit_size(window, console.width - 1, max(console.height - _LINES_BESIDE, 4))
    lines = draw_braille(clip.landmarks[number], clip.aspect, window, columns, rows)
    legend = Text.assemble(
        f"frame {number + 1:>{len(str(clip.num_frames))}}/{clip.num_frames}  ",
        *((f"{stream.name}  ", stream.color) for stream in STREAMS),
        "\u25cb hand not detected",
    )
    return Group(*lines, legend)


def _print_frames(console: Console, clip: "Clip") -> None:
    """A few frames one below the other, without colours."""
    from slrctl.reports.skeletons import shown_frames, window_of
    from slrctl.reports.terminal import draw_letters, fit_size

    window = window_of(clip.landmarks, clip.aspect)
    columns, rows = fit_size(window, _PIPE_COLUMNS, _PIPE_ROWS)
    print_lines(console, [". body, L left hand, R right hand, l r where one was not detected"])
    for number in shown_frames(clip.num_frames, _PIPE_FRAMES).tolist():
        frame = clip.landmarks[number]
        print_lines(
            console,
            [
                f"frame {number + 1} of {clip.num_frames}",
                *draw_letters(frame, clip.aspect, window, columns, rows),
            ],
        )


def play(console: Console, clip: "Clip", fps: float | None, *, loop: bool) -> None:
    """Show a clip once, or until interrupted, in colours where there are any.

    Args:
        console: where to.
        clip: not prepared: coordinates of the image.
        fps: frames a second; those of the clip if absent, else 25.
        loop: begin again at the end; then an interruption is the way to stop, and no failure.
    """
    from slrctl.reports.skeletons import USUAL_FPS

    if not console.is_terminal or console.no_color or "utf" not in console.encoding.lower():
        _print_frames(console, clip)
        return
    rate = fps or clip.fps or USUAL_FPS
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                _play_once(live, clip, rate)
                if not loop:
                    break
    except KeyboardInterrupt:
        if not loop:
            raise
