"""Option types that several commands share, and the layers of settings they make."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from slrctl.errors import UsageError
from slrctl.files import user_cache_folder
from slrctl.layers import Layer, flatten, nested, read_config, read_overrides
from slrctl.settings import DataSettings, Settings

if TYPE_CHECKING:
    from slrctl.core.data.cache import ClipCache

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change any setting; may be repeated."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]

# The value of --ray without an address; Ray's own word for a cluster that it starts itself.
_HERE = "local"


class Command(TyperCommand):
    """A command whose `--ray` may stand alone, which Typer has no options for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_address(args))


def _with_address(arguments: list[str]) -> list[str]:
    """Put an address after a `--ray` that is followed by another option, or by nothing."""
    given = []
    for argument, following in zip(arguments, [*arguments, "-"][1:], strict=True):
        given.append(argument)
        if argument == "--ray" and following.startswith("-"):
            given.append(_HERE)
    return given


def command(examples: str | None = None) -> Callable[[Callable[..., None]], Any]:
    """Turn a function into a command of the same name, with examples at the end of its help."""

    def build(function: Callable[..., None]) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(cls=Command, epilog=examples)(function)
        return typer.main.get_command(alone)

    return build


def setting_layers(
    config: Path | None,
    overrides: list[str] | None,
    *,
    preset: str | None = None,
    flags: dict[str, tuple[str, Any]] | None = None,
) -> list[Layer]:
    """The layers of a command line, lowest first.

    Args:
        config: the `--config` file.
        overrides: `--set` assignments.
        preset: the `--cmcl` preset.
        flags: for each flag its dotted key and its value; None is a flag that was not given.
    """
    layers = [] if config is None else [read_config(config)]
    if preset is not None:
        layers.append(Layer(f"--cmcl {preset}", nested("cmcl.preset", preset)))
    layers += read_overrides(overrides or [])
    layers += [
        Layer(flag, nested(key, value))
        for flag, (key, value) in (flags or {}).items()
        if value is not None
    ]
    return layers


def refuse_settled(layers: list[Layer], command: str) -> None:
    """Refuse what a trained model has settled: its size, its preparation, its training.

    Raises:
        UsageError: a layer names such a setting.
    """
    for layer in layers:
        for key in flatten(layer.values):
            is_open = key.startswith(("data.", "evaluate.")) or key in ("seed", "train.device")
            if not is_open or key == "data.val_mirrored":
                raise UsageError(
                    f"{layer.origin}: {key} is settled by the run; {command} takes data.*, "
                    "evaluate.*, seed and train.device"
                )


def with_absolute_paths(settings: Settings) -> Settings:
    """The settings of a run, which finds its data again wherever `evaluate` is called from.

    Relative paths, those of a config file too, start at the current folder.
    """
    paths = {name: path.absolute() for name, path in settings.data if isinstance(path, Path)}
    data = settings.data.model_copy(update=paths)
    return settings.model_copy(update={"data": data})


def data_cache(settings: DataSettings) -> "ClipCache":
    """The cache of clips, in the folder the settings name, else in the user's."""
    # Imported late: --help needs none of it.
    from slrctl.core.data.cache import ClipCache

    return ClipCache(settings.cache_dir or user_cache_folder(), settings.cache_gigabytes)


def cache_for(settings: DataSettings) -> "ClipCache | None":
    """The cache of clips; None where it is turned off."""
    return data_cache(settings) if settings.cache else None
