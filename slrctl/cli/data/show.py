"""`slrctl data show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.data.options import Force, reading_settings
from slrctl.cli.data.playback import play
from slrctl.cli.options import Json, Overrides, SkipBadClips, command
from slrctl.errors import SlrctlError, UsageError

if TYPE_CHECKING:
    from slrctl.core.clip import Clip


@command()
def show(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Clips in any format we read.")],
    which: Annotated[
        str | None,
        typer.Argument(metavar="[CLIP]", help="Its id, or its number from 1; 1 if absent."),
    ] = None,
    gloss: Annotated[
        str | None,
        typer.Option("--gloss", help="Look among the clips of this gloss only."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Draw a .gif, or a strip as .png or .pdf."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", min=0.1, max=1000, help="Frames a second; the clip's if absent."),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play until interrupted.")] = False,
    skip_bad_clips: SkipBadClips = None,
    force: Force = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Play a clip in the terminal, or draw it.

    In a pipe a few frames are printed in plain letters.
    """
    with report_errors():
        settings = reading_settings(ctx)
        _check_output(output, force=force)
        from slrctl.core.data.selection import find_clip, read_sources

        clip = find_clip(read_sources([path], settings).clips, which, gloss)
        console = console_for(as_json=as_json)
        print_lines(console, [_describe(clip)])
        if output is not None:
            _draw(clip, output, fps)
            print_lines(console, [f"written to {output}"])
        elif not as_json:
            play(console, clip, fps, loop=loop)
        if as_json:
            print_json(_facts(clip, output))


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
    from slrctl.errors import count_of

    facts = [
        f"{name} {value}"
        for name, value in (
            ("signer", clip.signer),
            ("session", clip.session),
            ("split", clip.split),
        )
        if value is not None
    ]
    rate = [] if clip.fps is None else [f"{clip.fps:g} frames a second"]
    return ", ".join(
        [f"{clip.gloss}: {clip.clip_id}", count_of(clip.num_frames, "frame"), *rate, *facts]
    )


def _facts(clip: "Clip", output: Path | None) -> dict[str, Any]:
    from slrctl.reports.skeletons import hand_presence

    left, right = hand_presence(clip.landmarks)
    return {
        "clip_id": clip.clip_id,
        "gloss": clip.gloss,
        "signer": clip.signer,
        "session": clip.session,
        "split": clip.split,
        "frames": clip.num_frames,
        "fps": clip.fps,
        "aspect": clip.aspect,
        "left_hand_present": float(left.mean()),
        "right_hand_present": float(right.mean()),
        "output": None if output is None else str(output),
    }


def _draw(clip: "Clip", output: Path, fps: float | None) -> None:
    from slrctl.reports.skeletons import draw_animation, draw_strip

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix.lower() == ".gif":
            draw_animation(clip, output, fps=fps)
        else:
            draw_strip(clip, output)
    except OSError as error:
        raise SlrctlError(
            f"{output}: cannot be written ({error.strerror}); choose another place"
        ) from None
