"""`slrctl inspect-attention`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli.console import console_for, report_errors
from slrctl.cli.options import (
    DATA,
    OUTPUT,
    RUNS_DIR,
    ConfigPath,
    DataPath,
    Device,
    Json,
    Overrides,
    SkipBadClips,
    command,
    refuse_settled,
    setting_layers,
)
from slrctl.errors import UsageError

FORMATS = ("terminal", "png", "svg", "pdf", "html", "npz", "json")
_BY_DEFAULT = ("terminal", "png", "html", "npz", "json")
QUESTION = "Question"
EXAMPLES = """Examples:

  slrctl inspect-attention runs/first --gloss book --output attention

  slrctl inspect-attention runs/first --compare runs/second --summary
"""


@command(EXAMPLES)
def inspect_attention(
    ctx: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a run; the newest if absent.")
    ] = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    device: Device = None,
    data: DataPath = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which split; by default val of the run, all of --data.", rich_help_panel=DATA
        ),
    ] = None,
    skip_bad_clips: SkipBadClips = None,
    clip: Annotated[
        str | None, typer.Option(metavar="ID", help="Look at one.", rich_help_panel=DATA)
    ] = None,
    gloss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Look at all that show it.", rich_help_panel=DATA),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Look at the N recognised worst.", rich_help_panel=DATA
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="fusion, encoder-1, ..., decoder-1, ...; fusion by default.",
            rich_help_panel=QUESTION,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN2",
            help="Another run on the same clips, beside it.",
            rich_help_panel=QUESTION,
        ),
    ] = None,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary",
            help="Summarise the attention over all the clips.",
            rich_help_panel=QUESTION,
        ),
    ] = False,
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Test whether attention names the frames that decide.",
            rich_help_panel=QUESTION,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for what is written.", rich_help_panel=OUTPUT),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help=f"Any of {','.join(FORMATS)}.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the hands attend to in a clip."""
    with report_errors():
        wanted = _wanted_formats(formats, output)
        if sum(choice is not None for choice in (clip, gloss, worst)) > 1:
            raise UsageError("--clip, --gloss and --worst each choose clips; give one of them")
        if (summary or faithfulness) and (clip is not None or worst is not None):
            raise UsageError(
                "--summary and --faithfulness are about all clips; leave --clip and --worst out, "
                "or choose with --split or --gloss"
            )
        layers = setting_layers(ctx)
        refuse_settled(layers, "inspect-attention")
        from slrctl.cli.attention_view import Choice, inspect

        inspect(
            run,
            compare,
            RUNS_DIR,
            layers,
            Choice(data, split, clip, gloss, worst, layer),
            wanted,
            output,
            console_for(as_json=as_json),
            summary=summary,
            faithfulness=faithfulness,
            as_json=as_json,
        )


def _wanted_formats(formats: str | None, output: Path | None) -> tuple[str, ...]:
    """Read `--format`; without it the terminal, and with a folder the usual files too."""
    if formats is None:
        return ("terminal",) if output is None else _BY_DEFAULT
    wanted = tuple(dict.fromkeys(name.strip() for name in formats.split(",")))
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(f"--format {name!r}: is not one of {', '.join(FORMATS)}")
    return wanted
