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
    option,
    refuse_settled,
    setting_layers,
    switch,
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
        option("Which split; by default val of the run, all of --data.", DATA),
    ] = None,
    skip_bad_clips: SkipBadClips = None,
    clip: Annotated[str | None, option("Look at one.", DATA, metavar="ID")] = None,
    gloss: Annotated[
        str | None,
        option("Look at all that show it.", DATA, metavar="NAME"),
    ] = None,
    worst: Annotated[
        int | None,
        option("Look at the N recognised worst.", DATA, metavar="N", least=1),
    ] = None,
    layer: Annotated[
        str | None,
        option("fusion, encoder-1, ..., decoder-1, ...; fusion by default.", QUESTION),
    ] = None,
    compare: Annotated[
        Path | None,
        option("Another run on the same clips, beside it.", QUESTION, metavar="RUN2"),
    ] = None,
    summary: Annotated[
        bool,
        switch("--summary", "Summarise the attention over all the clips.", QUESTION),
    ] = False,
    faithfulness: Annotated[
        bool,
        switch("--faithfulness", "Test whether attention names the frames that decide.", QUESTION),
    ] = False,
    output: Annotated[
        Path | None,
        option("Folder for what is written.", OUTPUT, metavar="DIR"),
    ] = None,
    formats: Annotated[
        str | None,
        option(f"Any of {','.join(FORMATS)}.", OUTPUT, "--format", metavar="LIST"),
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
