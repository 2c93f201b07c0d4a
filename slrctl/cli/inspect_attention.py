"""`slrctl inspect-attention`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import UsageError

FORMATS = ("terminal", "png", "svg", "pdf", "html", "npz", "json")
_BY_DEFAULT = ("terminal", "png", "html", "npz", "json")
QUESTION = "Question"
EXAMPLES = """Examples:

  slrctl inspect-attention runs/first --gloss book --output attention

  slrctl inspect-attention runs/first --compare runs/second --summary
"""


@opt.command(EXAMPLES)
def inspect_attention(
    ctx: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a run; the newest if absent.")
    ] = None,
    config: opt.ConfigPath = None,
    overrides: opt.Overrides = None,
    device: opt.Device = None,
    data: opt.DataPath = None,
    split: Annotated[
        str | None, opt.option("Which split; by default val of the run, all of --data.", opt.DATA)
    ] = None,
    skip_bad_clips: opt.SkipBadClips = None,
    clip: Annotated[str | None, opt.option("Look at one.", opt.DATA, metavar="ID")] = None,
    gloss: Annotated[
        str | None, opt.option("Look at all that show it.", opt.DATA, metavar="NAME")
    ] = None,
    worst: Annotated[
        int | None, opt.option("Look at the N recognised worst.", opt.DATA, metavar="N", least=1)
    ] = None,
    layer: Annotated[
        str | None,
        opt.option("fusion, encoder-1, ..., decoder-1, ...; fusion by default.", QUESTION),
    ] = None,
    compare: Annotated[
        Path | None,
        opt.option("Another run on the same clips, beside it.", QUESTION, metavar="RUN2"),
    ] = None,
    summary: Annotated[
        bool, opt.option("Summarise the attention over all the clips.", QUESTION, "--summary")
    ] = False,
    faithfulness: Annotated[
        bool,
        opt.option(
            "Test whether attention names the frames that decide.", QUESTION, "--faithfulness"
        ),
    ] = False,
    output: Annotated[
        Path | None, opt.option("Folder for what is written.", opt.OUTPUT, metavar="DIR")
    ] = None,
    formats: Annotated[
        str | None,
        opt.option(f"Any of {','.join(FORMATS)}.", opt.OUTPUT, "--format", metavar="LIST"),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Show what the hands attend to in a clip."""
    wanted = _wanted_formats(formats, output)
    if sum(choice is not None for choice in (clip, gloss, worst)) > 1:
        raise UsageError("--clip, --gloss and --worst each choose clips; give one of them")
    if (summary or faithfulness) and (clip is not None or worst is not None):
        raise UsageError(
            "--summary and --faithfulness are about all clips; leave --clip and --worst out, "
            "or choose with --split or --gloss"
        )
    layers = opt.layers_beside_run(ctx)
    from slrctl.cli.attention_view import inspect

    inspect(
        run,
        compare,
        layers,
        wanted,
        output,
        Display(as_json=as_json),
        data=data,
        split=split,
        clip=clip,
        gloss=gloss,
        worst=worst,
        layer=layer,
        summary=summary,
        faithfulness=faithfulness,
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
