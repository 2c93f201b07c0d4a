"""`slrctl inspect-attention`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli.attention_views import line_of, show_clip
from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    refuse_settled,
    setting_layers,
)
from slrctl.cli.train import RUNS_DIR
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.engine.subject import Subject
    from slrctl.studies.inspection.measures import MeasuredClip
    from slrctl.studies.inspection.opened import OpenedRun

FORMATS = ("terminal", "png", "svg", "pdf", "html", "npz", "json")
_BY_DEFAULT = ("terminal", "png", "html", "npz", "json")


def inspect_attention(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Folder of a run; the newest if absent.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Clips; those of the run if absent."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Which part; by default val of the run, all of --data."),
    ] = None,
    clip: Annotated[str | None, typer.Option("--clip", metavar="ID", help="Look at one.")] = None,
    gloss: Annotated[
        str | None, typer.Option("--gloss", metavar="NAME", help="Look at all that show it.")
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option("--worst", metavar="N", min=1, help="Look at the N recognised worst."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="fusion, encoder-1, ..., decoder-1, ...; fusion by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for what is written.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="LIST", help=f"Any of {','.join(FORMATS)}."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, mps.")] = None,
    skip_bad_clips: Annotated[
        bool,
        typer.Option("--skip-bad-clips", help="Leave bad clips of --data out and say how many."),
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the hands attend to in a clip."""
    with report_errors():
        wanted = _wanted_formats(formats, output)
        # Imported late: torch takes seconds, and --help does not need it.
        from slrctl.engine.run_folder import newest_run
        from slrctl.reports.attention_files import write_clips
        from slrctl.studies.inspection.measures import MeasuredClip, measure
        from slrctl.studies.inspection.opened import open_run

        flags = {
            "--device": ("train.device", device),
            "--skip-bad-clips": ("data.skip_bad_clips", skip_bad_clips or None),
        }
        run_dir = run or newest_run(RUNS_DIR)
        layers = setting_layers(config, overrides, flags=flags)
        refuse_settled(layers, "inspect-attention")
        opened = open_run(run_dir, layers)
        layer = opened.layer(layer)
        subject = opened.subject(data, split)
        console = console_for(as_json=as_json)
        print_lines(console, subject.notes)
        clips = _choose(opened, subject, clip, gloss, worst)
        looked = [
            MeasuredClip(inspected, measure(inspected, opened.run.settings.cmcl))
            for inspected in opened.inspect(clips, _kept_layers(opened, layer, wanted))
        ]
        if "terminal" in wanted:
            show_clip(console, opened.name, looked[0], layer)
            print_lines(console, [line_of(one) for one in looked[1:]])
        folder = output or run_dir / f"attention-{subject.name}"
        written = write_clips(folder, wanted, opened, looked, layer)
        if written:
            print_lines(console, [f"{len(written)} files in {folder}"])
        if as_json:
            print_json(_summary(opened, subject, layer, looked, written))


def _wanted_formats(formats: str | None, output: Path | None) -> tuple[str, ...]:
    """What `--format` lists; without it the terminal, and with a folder the usual files too."""
    if formats is None:
        return ("terminal",) if output is None else _BY_DEFAULT
    wanted = tuple(dict.fromkeys(name.strip() for name in formats.split(",")))
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(f"--format {name!r}: is not one of {', '.join(FORMATS)}")
    return wanted


def _kept_layers(opened: "OpenedRun", layer: str, wanted: tuple[str, ...]) -> set[str]:
    """A page switches between all layers; everything else shows the one asked for."""
    from slrctl.studies.inspection.record import FUSION, layer_names

    if "html" in wanted:
        return set(layer_names(opened.run.settings.model))
    return {FUSION, layer}


def _choose(
    opened: "OpenedRun",
    subject: "Subject",
    clip: str | None,
    gloss: str | None,
    worst: int | None,
) -> "list[Clip]":
    from slrctl.engine.run import predict_part
    from slrctl.studies.inspection import choosing

    if sum(choice is not None for choice in (clip, gloss, worst)) > 1:
        raise UsageError("--clip, --gloss and --worst each choose clips; give one of them")
    if clip is not None:
        return [choosing.clip_named(subject.dataset, clip)]
    if gloss is not None:
        return choosing.clips_of_gloss(subject.dataset, gloss)
    if worst is not None:
        predictions = predict_part(opened.run, opened.settings, subject.dataset, opened.device)
        return choosing.worst_clips(predictions, subject.dataset, worst)
    return [choosing.most_two_handed(subject.dataset)]


def _summary(
    opened: "OpenedRun",
    subject: "Subject",
    layer: str,
    looked: "list[MeasuredClip]",
    written: list[Path],
) -> dict[str, Any]:
    from slrctl.reports.attention_data import numbers, prediction

    return {
        "run_dir": str(opened.run_dir),
        "data": subject.name,
        "layer": layer,
        "clips": [
            {
                "clip_id": one.inspected.clip.clip_id,
                "gloss": one.inspected.clip.gloss,
                "num_frames": one.inspected.clip.num_frames,
                "prediction": prediction(one.inspected),
                **numbers(one.measures),
                "misplaced": one.inspected.misplaced,
            }
            for one in looked
        ],
        "files": [str(path) for path in written],
    }
