"""Options that several `slrctl data` commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slrctl.cli.options import setting_layers
from slrctl.errors import UsageError
from slrctl.layers import flatten, resolve
from slrctl.settings import DataSettings

GlossNamesOption = Annotated[
    Path | None,
    typer.Option(
        "--gloss-names",
        metavar="FILE",
        help="JSON or CSV that says what integer labels are called.",
    ),
]
FrameSizeOption = Annotated[
    str | None,
    typer.Option(
        "--frame-size",
        metavar="WIDTHxHEIGHT",
        help="Size of the image, for pixel coordinates in a file that does not say.",
    ),
]
SkipBadClipsOption = Annotated[
    bool, typer.Option("--skip-bad-clips", help="Leave bad clips out and say how many and why.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]


def reading_settings(
    overrides: list[str] | None,
    *,
    gloss_names: Path | None = None,
    frame_size: str | None = None,
    skip_bad_clips: bool = False,
) -> DataSettings:
    """How files are to be read.

    Raises:
        UsageError: a value is wrong, or --set names what has nothing to do with reading.
    """
    flags: dict[str, tuple[str, Any]] = {
        "--gloss-names": ("data.gloss_names", gloss_names),
        "--frame-size": ("data.frame_size", None if frame_size is None else _size(frame_size)),
        "--skip-bad-clips": ("data.skip_bad_clips", skip_bad_clips or None),
    }
    layers = setting_layers(None, overrides, flags=flags)
    for layer in layers:
        for key in flatten(layer.values):
            if not key.startswith("data."):
                raise UsageError(
                    f"{layer.origin}: {key} has nothing to do with reading clips; here --set takes "
                    "data.*"
                )
    return resolve(layers).settings.data


def _size(text: str) -> list[int]:
    width, _, height = text.lower().partition("x")
    if not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise UsageError(f"--frame-size {text}: expected WIDTHxHEIGHT in pixels, such as 640x480")
    return [int(width), int(height)]
