"""`slrctl data`: every command about clips in one visible list."""

import typer

from slrctl.cli.data.audit import audit
from slrctl.cli.data.cache import cache
from slrctl.cli.data.convert import convert
from slrctl.cli.data.extract import extract
from slrctl.cli.data.info import info
from slrctl.cli.data.show import show
from slrctl.cli.data.split import split
from slrctl.cli.data.synth import synth

data_app = typer.Typer(
    name="data",
    help="Read, check, convert and look at landmark clips.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

data_app.command()(convert)
data_app.command()(extract)
data_app.command()(info)
data_app.command()(split)
data_app.command()(show)
data_app.command()(audit)
data_app.command()(synth)
data_app.command()(cache)
