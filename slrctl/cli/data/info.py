"""`slrctl data info`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.data.info_views import show_overview
from slrctl.cli.data.options import reading_settings
from slrctl.cli.data.rectification_view import show_rectification
from slrctl.cli.options import FrameSize, GlossNames, Json, Overrides, SkipBadClips, command
from slrctl.files import writing_to

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.core.data.overview import Overview
    from slrctl.core.data.selection import Sources


@command()
def info(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Clips in any format we read.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Also draw a clip of each gloss, as PNG."),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1, help="Glosses, signers, sessions shown and drawn.")
    ] = 24,
    with_rectification: Annotated[
        bool,
        typer.Option(
            "--rectify", help="Also say how often joints of the hands are out of range, and after."
        ),
    ] = False,
    rectify_alpha: Annotated[
        float,
        typer.Option(min=0, max=1, help="With --rectify: share of the excess that is turned back."),
    ] = 0.4,
    gloss_names: GlossNames = None,
    frame_size: FrameSize = None,
    skip_bad_clips: SkipBadClips = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what a file of clips holds, and draw some of it."""
    with report_errors():
        settings = reading_settings(ctx)
        from slrctl.core.data.overview import describe_clips
        from slrctl.core.data.selection import read_sources

        console = console_for(as_json=as_json)
        read = read_sources([path], settings)
        overview = describe_clips(read.clips)
        show_overview(console, str(path), overview, read.notes, most)
        facts = _facts(path, read, overview)
        if with_rectification:
            facts["rectification"] = _report_rectification(console, read.clips, rectify_alpha)
        if output is not None:
            facts["pictures"] = _draw(read.clips, output, most)
            print_lines(console, [f"{len(facts['pictures'])} pictures in {output}"])
        if as_json:
            print_json(facts)


def _facts(path: Path, read: "Sources", overview: "Overview") -> dict[str, Any]:
    groups = ("glosses", "signers", "sessions", "splits")
    plain = overview._asdict() | {
        name: [group._asdict() for group in getattr(overview, name)] for name in groups
    }
    coordinates = overview.coordinates
    return {
        "path": str(path),
        **plain,
        "classes": len(overview.glosses),
        "balance": overview.balance._asdict(),
        "length": overview.length._asdict(),
        "fps": None if overview.fps is None else overview.fps._asdict(),
        "aspects": [{"aspect": a, "clips": count} for a, count in overview.aspects.items()],
        "hands": overview.hands._asdict(),
        "coordinates": coordinates._asdict()
        | {"x": coordinates.x._asdict(), "y": coordinates.y._asdict()},
        "dominant_hand": overview.dominant_hand._asdict(),
        "dropped_by_reason": dict(Counter(clip.kind for _, clip in read.dropped).most_common()),
        "notes": read.notes,
    }


def _report_rectification(console: Console, clips: "list[Clip]", alpha: float) -> dict[str, Any]:
    from slrctl.core.data.rectify import rectification_report
    from slrctl.settings import PrepareSettings

    report = rectification_report(clips, PrepareSettings(rectify_alpha=alpha))
    show_rectification(console, report)
    joints = [
        joint._asdict() | {"before": joint.before._asdict(), "after": joint.after._asdict()}
        for joint in report.joints
    ]
    return report._asdict() | {"joints": joints}


def _draw(clips: "list[Clip]", folder: Path, most: int) -> list[dict[str, str]]:
    """A strip for each of the first glosses, and sheets of all of them."""
    from slrctl.core.data.selection import typical_clips
    from slrctl.reports.skeletons import draw_sheets, draw_strip, strip_name

    chosen = typical_clips(clips, most)
    with writing_to(folder):
        pictures = []
        for number, clip in enumerate(chosen, start=1):
            path = folder / strip_name(number, clip.gloss)
            draw_strip(clip, path)
            pictures.append({"gloss": clip.gloss, "clip_id": clip.clip_id, "path": str(path)})
        sheets = draw_sheets(chosen, folder)
    return [*pictures, *({"path": str(sheet)} for sheet in sheets)]
