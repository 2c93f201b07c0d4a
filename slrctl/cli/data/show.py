"""`slrctl data show`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import UsageError, count_of

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.reports.clips import ShownClip

# Lines of a terminal kept free for the title and the prompt.
_LINES_BESIDE = 3


@opt.command()
def show(
    ctx: typer.Context,
    path: opt.Clips,
    which: Annotated[
        str | None,
        typer.Argument(metavar="CLIP", help="Its id, or its number from 1; 1 if absent."),
    ] = None,
    overrides: opt.Overrides = None,
    gloss: Annotated[
        str | None, opt.option("Look among the clips of this gloss only.", opt.DATA)
    ] = None,
    skip_bad_clips: opt.SkipBadClips = None,
    fps: Annotated[
        float | None,
        opt.option("Frames a second; the clip's if absent.", opt.OUTPUT, least=0.1, most=1000),
    ] = None,
    loop: Annotated[bool, opt.option("Play until interrupted.", opt.OUTPUT, "--loop")] = False,
    output: Annotated[
        Path | None,
        opt.option("Draw a .gif, or a strip as .png, .pdf or .svg.", opt.OUTPUT, metavar="FILE"),
    ] = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Play a clip in the terminal, or draw it.

    In a pipe a few frames are printed in plain letters.
    """
    settings = opt.reading_settings(ctx)
    _check_output(output, force=force)
    from slrctl.reports.clips import open_clip

    shown = open_clip(path, settings, which, gloss)
    display = Display(as_json=as_json)
    display.lines(_describe(shown.clip))
    if output is not None:
        shown.draw(output, fps)
        display.lines(f"written to {output}")
    elif not as_json:
        play(display, shown, fps, loop=loop)
    display.json({**shown.to_json(), "output": None if output is None else str(output)})


def _check_output(output: Path | None, *, force: bool) -> None:
    if output is None:
        return
    if output.suffix.lower() not in (".gif", ".png", ".pdf", ".svg"):
        raise UsageError(
            f"--output {output}: let its name end in .gif for an animation, or in .png, .pdf or "
            ".svg for a strip of frames"
        )
    if output.exists() and not force:
        raise UsageError(f"{output}: is there already; choose another name, or pass --force")


def _describe(clip: "Clip") -> str:
    facts = [f"{clip.gloss}: {clip.clip_id}", count_of(clip.num_frames, "frame")]
    facts += [] if clip.fps is None else [f"{clip.fps:g} frames a second"]
    known = {"signer": clip.signer, "session": clip.session, "split": clip.split}
    facts += [f"{name} {value}" for name, value in known.items() if value is not None]
    return ", ".join(facts)


def play(display: Display, shown: "ShownClip", fps: float | None, *, loop: bool) -> None:
    """Show a clip once, or until interrupted, in colours; without colours a few of its frames.

    Args:
        display: a terminal, or a pipe.
        shown: the clip.
        fps: frames a second; those of the clip if absent, else 25.
        loop: begin again at the end; then an interruption is the way to stop, and no failure.
    """
    console = display.console
    if not console.is_terminal or console.no_color or "utf" not in console.encoding.lower():
        display.lines(*shown.letters())
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            _play_once(live, shown, fps or shown.usual_fps)
            while loop:
                _play_once(live, shown, fps or shown.usual_fps)
    except KeyboardInterrupt:
        if not loop:
            raise


def _play_once(live: Live, shown: "ShownClip", fps: float) -> None:
    """Show every frame at its time; where the terminal is too slow, frames are left out."""
    started, count = time.perf_counter(), shown.clip.num_frames
    columns, rows = live.console.width - 1, max(live.console.height - _LINES_BESIDE, 4)
    for number in range(count):
        ahead = started + number / fps - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1 / fps and number < count - 1:
            continue
        live.update(shown.picture(number, columns, rows), refresh=True)
    time.sleep(max(0.0, started + count / fps - time.perf_counter()))
