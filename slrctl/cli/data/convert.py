"""`slrctl data convert`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.data.options import Force, reading_settings
from slrctl.cli.options import FrameSize, GlossNames, Json, Overrides, SkipBadClips, command
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.core.data.selection import Dropped

# As many clips that were left out are shown one by one; all of them are in --json.
_MOST_SHOWN = 10


@command()
def convert(
    ctx: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SRC...", help="Clips in any format we read; several are joined."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write: .parquet (ours) or .csv (SPOTER).")
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="PART",
            help="Mark the clips as train, val or test; with several SRC, once for each in turn.",
        ),
    ] = None,
    gloss_names: GlossNames = None,
    frame_size: FrameSize = None,
    skip_bad_clips: SkipBadClips = None,
    force: Force = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Convert clips of any format to our Parquet, or to the SPOTER CSV.

    Landmarks are cleaned (padding cut, pixels divided, y turned down, missing ones NaN) and
    otherwise left as they are; what was done is said in one line each.
    """
    with report_errors():
        settings = reading_settings(ctx)
        from slrctl.core.data.selection import read_sources
        from slrctl.core.data.writers import check_output, write_clips

        for source in sources:
            if source.exists() and output.exists() and source.samefile(output):
                raise UsageError(f"{output}: is the source itself; choose another name")
        check_output(output, force=force)
        read = read_sources(sources, settings, split or ())
        notes = [*read.notes, *write_clips(read.clips, output)]
        console = console_for(as_json=as_json)
        print_lines(console, [*notes, *_dropped_lines(read.dropped), _say(read.clips, output)])
        if as_json:
            print_json(_summary(sources, output, read.clips, read.dropped, notes))


def _dropped_lines(dropped: "list[Dropped]") -> list[str]:
    lines = [f"  {source}: {clip.where}: {clip.message}" for source, clip in dropped[:_MOST_SHOWN]]
    if len(dropped) > _MOST_SHOWN:
        lines.append(f"  and {len(dropped) - _MOST_SHOWN:,} more; --json lists them all")
    return lines


def _say(clips: "list[Clip]", output: Path) -> str:
    from slrctl.errors import count_of

    glosses = len({clip.gloss for clip in clips})
    frames = sum(clip.num_frames for clip in clips)
    return (
        f"{count_of(len(clips), 'clip')} ({count_of(frames, 'frame')}) of "
        f"{count_of(glosses, 'gloss')} written to {output}"
    )


def _summary(
    sources: list[Path],
    output: Path,
    clips: "list[Clip]",
    dropped: "list[Dropped]",
    notes: list[str],
) -> dict[str, Any]:
    return {
        "sources": [str(source) for source in sources],
        "output": str(output),
        "clips": len(clips),
        "frames": sum(clip.num_frames for clip in clips),
        "glosses": len({clip.gloss for clip in clips}),
        "splits": dict(sorted(Counter(clip.split for clip in clips if clip.split).items())),
        "dropped_by_reason": dict(Counter(clip.kind for _, clip in dropped).most_common()),
        "dropped": [
            {
                "source": str(source),
                "where": clip.where,
                "reason": clip.kind,
                "message": clip.message,
            }
            for source, clip in dropped
        ],
        "notes": notes,
    }
