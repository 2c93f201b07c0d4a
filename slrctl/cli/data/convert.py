"""`slrctl data convert`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import count_of

if TYPE_CHECKING:
    from slrctl.core.data.selection import Sources

# As many clips that were left out are shown one by one; all of them are in --json.
_MOST_SHOWN = 10


@opt.command()
def convert(
    ctx: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SRC", help="Clips in any format we read; several are joined."),
    ],
    output: opt.OutputClips,
    overrides: opt.Overrides = None,
    split: Annotated[
        list[str] | None,
        opt.option(
            "Mark the clips as train, val or test; with several SRC, once for each in turn.",
            opt.DATA,
            metavar="SPLIT",
        ),
    ] = None,
    gloss_names: opt.GlossNames = None,
    frame_size: opt.FrameSize = None,
    skip_bad_clips: opt.SkipBadClips = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Convert clips of any format to our Parquet, or to the SPOTER CSV.

    Landmarks are cleaned (padding cut, pixels divided, y turned down, missing ones NaN) and
    otherwise left as they are; what was done is said in one line each.
    """
    settings = opt.reading_settings(ctx)
    from slrctl.core.data.conversion import convert_files

    read = convert_files(sources, output, settings, split or (), force=force)
    facts = _facts(sources, output, read)
    lines = [
        f"  {source}: {clip.where}: {clip.message}" for source, clip in read.dropped[:_MOST_SHOWN]
    ]
    if len(read.dropped) > _MOST_SHOWN:
        lines.append(f"  and {len(read.dropped) - _MOST_SHOWN:,} more; --json lists them all")
    lines.append(
        f"{count_of(facts['clips'], 'clip')} ({count_of(facts['frames'], 'frame')}) of "
        f"{count_of(facts['glosses'], 'gloss')} written to {output}"
    )
    display = Display(as_json=as_json)
    display.lines(*read.notes, *lines)
    display.json(facts)


def _facts(sources: list[Path], output: Path, read: "Sources") -> dict[str, Any]:
    clips, dropped = read.clips, read.dropped
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
        "notes": read.notes,
    }
