"""The command line: every command in one visible list."""

import os
from importlib import metadata
from typing import Annotated

import typer

from slrctl.cli.ablate.command import ablate
from slrctl.cli.ablate.options import AblateCommand
from slrctl.cli.console import told_if_output_is_lost
from slrctl.cli.data import data_app
from slrctl.cli.doctor import doctor
from slrctl.cli.evaluate import evaluate
from slrctl.cli.inspect_attention import inspect_attention
from slrctl.cli.train import train

app = typer.Typer(
    name="slrctl",
    help="Train, evaluate and question SiFormer with CMCL on isolated signs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


app.command()(train)
app.command()(evaluate)
app.command(cls=AblateCommand)(ablate)
app.command()(inspect_attention)
app.command()(doctor)
app.add_typer(data_app)


def main() -> None:
    """Entry point of the `slrctl` command."""
    # Threads that wait for one another by spinning slow a training tenfold as soon as another
    # process wants the cores. OpenMP reads this once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The one workspace with which CUDA's matrix products give the same bits again.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with told_if_output_is_lost():
        app()
