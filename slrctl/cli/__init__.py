"""The command line: every command in one visible list, loaded when it is used."""

import os
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slrctl.cli.console import told_if_output_is_lost

# Each command with its short help. `data info` is the function `info` of `slrctl.cli.data.info`.
COMMANDS = {
    "train": "Train a model, keep its best checkpoint, and evaluate it.",
    "evaluate": "Evaluate a trained model on clips, with intervals.",
    "ablate": "Train variants against a baseline over paired seeds, and say what was shown.",
    "inspect-attention": "Show what the hands attend to in a clip.",
    "doctor": "Check this installation: packages, arithmetic, determinism, saving, folders.",
    "data convert": "Convert clips of any format to our Parquet, or to the SPOTER CSV.",
    "data extract": "Turn videos into clips of landmarks with MediaPipe Holistic.",
    "data info": "Say what a file of clips holds, and draw some of it.",
    "data split": "Divide clips into train, val and test, and write that into the split column.",
    "data show": "Play a clip in the terminal, or draw it.",
    "data audit": "Look for leaks between the splits of a set; exit 1 where there are any.",
    "data synth": "Generate synthetic signing whose truth is known, and save it.",
    "data cache": "Show or clear the clips that are kept so that no file is read twice.",
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name, and imports one when it runs or shows its help."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if ctx.parent is None else f"{ctx.info_name} {args[0]}"
        if name in COMMANDS:
            path = name.replace("-", "_").split()
            self.add_command(getattr(import_module(".".join(["slrctl.cli", *path])), path[-1]))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = "rich"  # for help only: errors stay plain lines
        super().format_help(ctx, formatter)


def _lazy_group(name: str, summary: str, path: str = "") -> typer.Typer:
    group = typer.Typer(
        name=name,
        help=summary,
        cls=LazyGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for command, short_help in COMMANDS.items():
        above, _, last = command.rpartition(" ")
        if above == path:
            group.command(last, help=short_help)(lambda: None)
    return group


app = _lazy_group("slrctl", "Train, evaluate and question recognisers of isolated signs.")
app.add_typer(_lazy_group("data", "Read, check, convert and look at landmark clips.", path="data"))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"slrctl {metadata.version('slrctl')}")
        raise typer.Exit


@app.callback()
def _slrctl(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `slrctl` command."""
    # Threads that wait for one another by spinning slow a training tenfold as soon as another
    # process wants the cores. OpenMP reads this once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The one workspace with which CUDA's matrix products give the same bits again.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with told_if_output_is_lost():
        app()
