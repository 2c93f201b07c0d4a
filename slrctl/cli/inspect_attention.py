"""`slrctl inspect-attention`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli.attention_views import line_of, show_clip
from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.options import (
    RUNS_DIR,
    ConfigPath,
    Device,
    Json,
    Overrides,
    SkipBadClips,
    command,
    refuse_settled,
    setting_layers,
)
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.cli.attention_sets import Asked
    from slrctl.core.data.dataset import SignDataset
    from slrctl.studies.attention.inspect import OpenedRun
    from slrctl.studies.attention.measures import MeasuredClip

FORMATS = ("terminal", "png", "svg", "pdf", "html", "npz", "json")
_BY_DEFAULT = ("terminal", "png", "html", "npz", "json")


@command()
def inspect_attention(
    ctx: typer.Context,
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
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="RUN2", help="Another run on the same clips, beside it."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Summarise the attention over all the clips.")
    ] = False,
    faithfulness: Annotated[
        bool,
        typer.Option("--faithfulness", help="Test whether attention says what decides."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for what is written.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="LIST", help=f"Any of {','.join(FORMATS)}."),
    ] = None,
    device: Device = None,
    skip_bad_clips: SkipBadClips = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show what the hands attend to in a clip."""
    with report_errors():
        wanted = _wanted_formats(formats, output)
        _check_choices(clip, gloss, worst, is_about_a_set=summary or faithfulness)
        # Imported late: torch takes seconds, and --help does not need it.
        from slrctl.cli.attention_sets import Asked, run_faithfulness, run_summary
        from slrctl.runs.folder import newest_run
        from slrctl.studies.attention.inspect import load_clips, open_run
        from slrctl.studies.attention.record import clips_of_gloss

        layers = setting_layers(ctx)
        refuse_settled(layers, "inspect-attention")
        runs = [open_run(run or newest_run(RUNS_DIR), layers)]
        if compare is not None:
            runs.append(open_run(compare, layers, beside=runs[0]))
        subject, datasets = load_clips(runs, data, split)
        if gloss is not None:
            datasets = [clips_of_gloss(dataset, gloss) for dataset in datasets]
        console = console_for(as_json=as_json)
        folder = output or runs[0].run_dir / f"attention-{subject.name}"
        asked = Asked(console, tuple(runs), tuple(datasets), subject.name, wanted, folder)
        print_lines(console, subject.notes)
        result: dict[str, Any] = {"run_dir": str(runs[0].run_dir), "data": subject.name}
        if summary:
            result["summary"] = run_summary(asked)
        if faithfulness:
            result["faithfulness"] = run_faithfulness(asked)
        if not (summary or faithfulness):
            chosen = _choose(runs[0], datasets[0], clip, worst, is_gloss_named=gloss is not None)
            result |= _run_clips(asked, chosen, runs[0].layer(layer))
        if as_json:
            print_json(result)


def _check_choices(
    clip: str | None, gloss: str | None, worst: int | None, *, is_about_a_set: bool
) -> None:
    if sum(choice is not None for choice in (clip, gloss, worst)) > 1:
        raise UsageError("--clip, --gloss and --worst each choose clips; give one of them")
    if is_about_a_set and (clip is not None or worst is not None):
        raise UsageError(
            "--summary and --faithfulness are about all clips; leave --clip and --worst out, "
            "or choose with --split or --gloss"
        )


def _run_clips(asked: "Asked", clip_ids: list[str], layer: str) -> dict[str, Any]:
    """Show clips one by one, write their files, and return what `--json` prints."""
    from slrctl.reports.attention_files import write_clips
    from slrctl.studies.attention.measures import MeasuredClip, measure

    looked = [
        [
            MeasuredClip(inspected, measure(inspected, opened.run.settings.cmcl))
            for inspected in opened.inspect(
                dataset, clip_ids, _kept_layers(opened, layer, asked.formats)
            )
        ]
        for opened, dataset in zip(asked.runs, asked.datasets, strict=True)
    ]
    for opened, measured in zip(asked.runs, looked, strict=True):
        if "terminal" in asked.formats:
            show_clip(asked.console, opened.name, measured[0], opened.layer(layer))
            print_lines(asked.console, [line_of(one) for one in measured[1:]])
    written = write_clips(asked.folder, asked.formats, asked.runs, looked, layer)
    if written:
        print_lines(asked.console, [f"{len(written)} files in {asked.folder}"])
    result: dict[str, Any] = {"layer": layer, "clips": _clips_json(looked[0])}
    if len(looked) > 1:
        result["compared_with"] = {
            "run_dir": str(asked.runs[1].run_dir),
            "clips": _clips_json(looked[1]),
        }
    return {**result, "files": [str(path) for path in written]}


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
    from slrctl.studies.attention.record import FUSION, layer_names

    if "html" in wanted:
        return set(layer_names(opened.run.settings.model))
    return {FUSION, layer}


def _choose(
    opened: "OpenedRun",
    dataset: "SignDataset",
    clip: str | None,
    worst: int | None,
    *,
    is_gloss_named: bool,
) -> list[str]:
    """The ids of the clips to look at."""
    from slrctl.evaluation.predictions import predict_dataset
    from slrctl.studies.attention import record as choosing

    if clip is not None:
        return [choosing.clip_named(dataset, clip).clip_id]
    if is_gloss_named:
        return [one.clip_id for one in dataset]
    if worst is not None:
        predictions = predict_dataset(opened.run.model, dataset, opened.settings, opened.device)
        return choosing.worst_clips(predictions, worst)
    return [choosing.most_two_handed(dataset).clip_id]


def _clips_json(looked: "list[MeasuredClip]") -> list[dict[str, Any]]:
    from slrctl.reports.attention_data import numbers, prediction

    return [
        {
            "clip_id": one.inspected.clip.clip_id,
            "gloss": one.inspected.clip.gloss,
            "num_frames": one.inspected.clip.num_frames,
            "prediction": prediction(one.inspected),
            **numbers(one.measures),
            "misplaced": one.inspected.misplaced,
        }
        for one in looked
    ]
