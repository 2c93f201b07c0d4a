"""`slrctl data extract`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import SlrctlError, count_of

if TYPE_CHECKING:
    from slrctl.core.data.video import BadVideo, ExtractionReport, Video


@opt.command()
def extract(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEOS",
            help="A video, a folder of videos, a folder with a folder of videos per gloss, or a "
            "CSV with the columns path, gloss and, where known, signer, session, split.",
        ),
    ],
    output: opt.OutputClips,
    gloss: Annotated[
        str | None, opt.option("What the videos show, where neither folders nor a CSV say it.")
    ] = None,
    jobs: Annotated[int, opt.option("Videos worked on at a time.", least=1)] = 1,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Turn videos into clips of landmarks with MediaPipe Holistic.

    A video that cannot be used is reported and does not stop the others. An extraction that was
    stopped goes on where it was when the command is run again. Needs the extra `video`.
    """
    from slrctl.core.data.video import VideoReport, extract_videos, prepare_extraction

    videos, notes = prepare_extraction(source, output, gloss, force=force)
    display = Display(as_json=as_json)
    display.lines(*notes)
    bar = Progress(
        TextColumn("videos"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=display.console,
        transient=True,
        disable=not display.console.is_terminal,
    )
    task = bar.add_task("videos", total=len(videos))
    with bar:
        for report in extract_videos(videos, output, jobs):
            if isinstance(report, VideoReport):
                bar.update(task, completed=report.num_done)
                if report.failure is not None:
                    display.lines(_describe(report.video, report.failure))
            else:
                _show_end(display, output, report)


def _show_end(display: Display, output: Path, report: "ExtractionReport") -> None:
    display.json(_summary(output, report))
    if not report.clips:
        raise SlrctlError(
            f"none of {len(report.failures)} videos gave a clip; the first: "
            f"{_describe(*next(iter(report.failures.items())))}"
        )
    display.lines(*report.notes, *_closing_lines(output, report))


def _describe(video: "Video", failure: "BadVideo") -> str:
    return f"{video.path}: {failure.message}"


def _tally(report: "ExtractionReport") -> dict[str, int]:
    return dict(Counter(failure.kind for failure in report.failures.values()).most_common())


def _closing_lines(output: Path, report: "ExtractionReport") -> list[str]:
    frames = sum(clip.num_frames for clip in report.clips)
    glosses = len({clip.gloss for clip in report.clips})
    left, right = report.missing_hands
    lines = [
        f"{count_of(len(report.clips), 'clip')} ({count_of(frames, 'frame')}) of "
        f"{count_of(glosses, 'gloss')} written to {output}",
        f"hands  left missing in {100 * left:.0f} %, right in {100 * right:.0f} % of the frames",
    ]
    if report.num_resumed:
        lines.append(f"{count_of(report.num_resumed, 'clip')} kept from before")
    if report.failures:
        reasons = ", ".join(f"{count} {kind}" for kind, count in _tally(report).items())
        tried = len(report.failures) + len(report.clips)
        lines += [
            f"warning: {len(report.failures)} of {tried} videos gave no clip: {reasons}",
            "put them right and run the command again with --force: only they are repeated. Clips "
            f"that are done are kept in {report.kept_dir}; remove it when you need it no more",
        ]
    return lines


def _summary(output: Path, report: "ExtractionReport") -> dict[str, Any]:
    return {
        "output": str(output) if report.clips else None,
        "clips": len(report.clips),
        "frames": sum(clip.num_frames for clip in report.clips),
        "glosses": len({clip.gloss for clip in report.clips}),
        "kept_from_before": report.num_resumed,
        "notes": report.notes,
        "failed_by_reason": _tally(report),
        "failed": [
            {
                "video": str(video.path),
                "clip_id": video.clip_id,
                "reason": failure.kind,
                "message": failure.message,
            }
            for video, failure in report.failures.items()
        ],
    }
