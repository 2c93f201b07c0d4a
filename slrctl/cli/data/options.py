"""Options that several `slrctl data` commands share."""

from typing import Annotated

import typer

from slrctl.cli.options import OUTPUT, setting_layers
from slrctl.errors import UsageError
from slrctl.layers import flatten, resolve
from slrctl.settings import DataSettings

Force = Annotated[
    bool,
    typer.Option("--force", help="Write over a file that is there.", rich_help_panel=OUTPUT),
]


def reading_settings(ctx: typer.Context) -> DataSettings:
    """Read how files are to be read from a command line.

    Raises:
        UsageError: a value is wrong, or --set names what has nothing to do with reading.
    """
    layers = setting_layers(ctx)
    for layer in layers:
        for key in flatten(layer.values):
            if not key.startswith("data."):
                raise UsageError(
                    f"{layer.origin}: {key} has nothing to do with reading clips; here --set takes "
                    "data.*"
                )
    return resolve(layers).settings.data
