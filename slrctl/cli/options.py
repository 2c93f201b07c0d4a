"""Options that several commands share, and the layers of settings they make."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from slrctl.cli.console import report_errors
from slrctl.errors import UsageError
from slrctl.layers import Layer, flatten, nested, read_config, read_overrides, resolve
from slrctl.settings import DataSettings, Settings

RUNS_DIR = Path("runs")
DATA, MODEL, CMCL, TRAINING, OUTPUT = "Data", "Model", "CMCL", "Training", "Output"


def setting(flag: str, key: str, panel: str | None = None, metavar: str | None = None) -> Any:
    """Make an option of a setting, whose description and default become its help.

    Args:
        flag: its name; for a switch that is on by default, with the one that turns it off.
        key: dotted name of the setting.
        panel: where `--help` shows it; among the other options if absent.
        metavar: what `--help` calls its value.
    """
    section: Any = Settings
    *above, name = key.split(".")
    for part in above:
        section = section.model_fields[part].annotation
    field = section.model_fields[name]
    is_switch = field.annotation is bool
    default = ("off", "on")[field.default] if is_switch else field.default
    is_shown = default is not None and (not is_switch or "/" in flag)
    option: Any = typer.Option(
        flag,
        help=field.description + (rf" \[default: {default}]" if is_shown else ""),  # it is markup
        rich_help_panel=panel,
        metavar=metavar,
    )
    option.setting_key = key  # which `command` collects
    return option


def option(
    help_text: str,
    panel: str | None = None,
    *flags: str,
    metavar: str | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """Make an option that is no setting; its name is that of the parameter if no flag is given."""
    return typer.Option(
        *flags, help=help_text, rich_help_panel=panel, metavar=metavar, min=least, max=most
    )


TrainPath = Annotated[Path | None, setting("--train", "data.train", DATA, "PATH")]
ValPath = Annotated[Path | None, setting("--val", "data.val", DATA, "PATH")]
TestPath = Annotated[Path | None, setting("--test", "data.test", DATA, "PATH")]
SkipBadClips = Annotated[bool | None, setting("--skip-bad-clips", "data.skip_bad_clips", DATA)]
GlossNames = Annotated[Path | None, setting("--gloss-names", "data.gloss_names", DATA, "FILE")]
FrameSize = Annotated[str | None, setting("--frame-size", "data.frame_size", DATA, "WxH")]
TrainSigners = Annotated[str | None, setting("--train-signers", "data.train_signers", DATA, "A,B")]
CrossAttention = Annotated[
    bool | None, setting("--cross-attention/--no-cross-attention", "model.cross_attention", MODEL)
]
Preset = Annotated[
    Literal["off", "conservative", "balanced", "aggressive", "adaptive"] | None,
    setting("--cmcl", "cmcl.preset", CMCL, "PRESET"),
]
LambdaConsistency = Annotated[
    float | None, setting("--lambda-consistency", "cmcl.lambda_consistency", CMCL)
]
LambdaAlignment = Annotated[
    float | None, setting("--lambda-alignment", "cmcl.lambda_alignment", CMCL)
]
Temperature = Annotated[float | None, setting("--cmcl-temperature", "cmcl.temperature", CMCL)]
Adaptive = Annotated[
    bool | None, setting("--adaptive-cmcl/--no-adaptive-cmcl", "cmcl.adaptive", CMCL)
]
Epochs = Annotated[int | None, setting("--epochs", "train.epochs", TRAINING)]
BatchSize = Annotated[int | None, setting("--batch-size", "train.batch_size", TRAINING)]
LearningRate = Annotated[float | None, setting("--learning-rate", "train.learning_rate", TRAINING)]
Seed = Annotated[int | None, setting("--seed", "seed", TRAINING)]
Device = Annotated[str | None, setting("--device", "train.device")]

DataPath = Annotated[
    Path | None, option("Clips; those of the run if absent.", DATA, "--data", metavar="PATH")
]
ConfigPath = Annotated[
    Path | None, option("TOML file of settings.", None, "--config", metavar="FILE")
]
Overrides = Annotated[
    list[str] | None,
    option("Change any setting; may be repeated.", None, "--set", metavar="KEY=VALUE"),
]
Clips = Annotated[Path, typer.Argument(metavar="PATH", help="Clips in any format we read.")]
OutputClips = Annotated[
    Path, typer.Argument(metavar="OUT", help="File to write: .parquet (ours) or .csv (SPOTER).")
]
Force = Annotated[bool, option("Write over a file that is there.", OUTPUT, "--force")]
Json = Annotated[
    bool, option("Print one JSON object on standard output, nothing else.", OUTPUT, "--json")
]
Quiet = Annotated[bool, option("Print errors only.", OUTPUT, "--quiet")]


def config_layers(ctx: typer.Context) -> list[Layer]:
    """Read the `--config` file of a command line, if it names one."""
    path = ctx.params.get("config")
    return [] if path is None else [read_config(Path(path))]


def flag_layers(ctx: typer.Context) -> list[Layer]:
    """Read the flags of a command line, lowest first: `--cmcl`, then `--set`, then all others."""
    keys = getattr(ctx.command, "setting_keys", {})
    given = {
        param.opts[0]: nested(keys[param.name], ctx.params[param.name])
        for param in ctx.command.params
        if param.name in keys and ctx.params[param.name] is not None
    }
    preset = given.pop("--cmcl", None)
    layers = [] if preset is None else [Layer(f"--cmcl {preset['cmcl']['preset']}", preset)]
    layers += read_overrides(ctx.params.get("overrides") or [])
    return layers + [Layer(flag, tree) for flag, tree in given.items()]


def setting_layers(ctx: typer.Context) -> list[Layer]:
    """Read all settings of a command line, lowest first: the `--config` file, then the flags."""
    return [*config_layers(ctx), *flag_layers(ctx)]


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


def layers_beside_run(ctx: typer.Context) -> list[Layer]:
    """Read the settings of a command that uses a trained model.

    Raises:
        UsageError: a setting belongs to the model (its size, its preparation, its training), does
            not exist, or has a wrong value.
    """
    layers = setting_layers(ctx)
    resolve(layers)
    for layer in layers:
        for key in flatten(layer.values):
            is_open = key.startswith(("data.", "evaluate.")) or key in ("seed", "train.device")
            if not is_open or key == "data.val_mirrored":
                raise UsageError(
                    f"{layer.origin}: {key} is settled by the run; {ctx.info_name} takes data.*, "
                    "evaluate.*, seed and train.device"
                )
    return layers


def with_absolute_paths(settings: Settings) -> Settings:
    """Make paths absolute, so that a run finds its data from any folder.

    Relative paths, those of a config file too, start at the current folder.
    """
    paths = {name: path.absolute() for name, path in settings.data if isinstance(path, Path)}
    data = settings.data.model_copy(update=paths)
    return settings.model_copy(update={"data": data})


class Command(TyperCommand):
    """A command that ends with one line and an exit code when it fails as can be expected.

    It names the setting behind a flag that it does not have. Its `--ray` may stand alone, for which
    Typer has no options.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            with report_errors():
                self._check_flags(args)
        return super().parse_args(ctx, _with_address(args))

    def invoke(self, ctx: Any) -> Any:
        with report_errors():
            return super().invoke(ctx)

    def _check_flags(self, args: list[str]) -> None:
        known = {flag for param in self.params for flag in (*param.opts, *param.secondary_opts)}
        if "--set" not in known:
            return
        for argument, following in pairwise([*args, "-"]):
            flag, equals, value = argument.partition("=")
            name = flag.removeprefix("--").replace("-", "_")
            if flag in known or not flag.startswith("--"):
                continue
            if not equals:
                value = "true" if following.startswith("-") else following
            keys = [k for k in flatten(Settings().model_dump()) if k.rpartition(".")[2] == name]
            if keys:
                advice = " or ".join(f"--set {key}={value}" for key in keys)
                raise UsageError(f"{flag}: not a flag; use {advice}")


def _with_address(arguments: list[str]) -> list[str]:
    """Put an address after a `--ray` that is followed by another option, or by nothing."""
    given = []
    for argument, following in pairwise([*arguments, "-"]):
        given.append(argument)
        if argument == "--ray" and following.startswith("-"):
            given.append("local")  # Ray's own word for a cluster that it starts itself
    return given


def command(examples: str | None = None) -> Callable[[Callable[..., None]], Any]:
    """Turn a function into a command of the same name, with examples at the end of its help."""

    def build(function: Callable[..., None]) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(cls=Command, epilog=examples)(function)
        built: Any = typer.main.get_command(alone)
        built.setting_keys = {
            name: option.setting_key
            for name, hint in get_type_hints(function, include_extras=True).items()
            for option in get_args(hint)
            if hasattr(option, "setting_key")
        }
        return built

    return build
