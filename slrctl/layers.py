"""Lay settings over one another in one fixed order, and remember where each value came from.

Lowest first: defaults, recipe, `--config` file, `--cmcl` preset, ablation variant, `--set`, named
flags (SPEC, section 6). A preset that a layer names is laid down just before that layer, so single
values beside it win.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from slrctl.errors import DataError, UsageError
from slrctl.files import parse_toml, read_toml
from slrctl.settings import Settings

Tree = Mapping[str, Any]

CMCL_PRESETS: dict[str, dict[str, Any]] = {
    "off": {"lambda_consistency": 0.0, "lambda_alignment": 0.0, "adaptive": False},
    "conservative": {"lambda_consistency": 0.05, "lambda_alignment": 0.03, "adaptive": False},
    "balanced": {"lambda_consistency": 0.1, "lambda_alignment": 0.05, "adaptive": False},
    "aggressive": {"lambda_consistency": 0.2, "lambda_alignment": 0.1, "adaptive": False},
    "adaptive": {"lambda_consistency": 0.2, "lambda_alignment": 0.1, "adaptive": True},
}

RECIPES: dict[str, dict[str, Any]] = {
    "slrctl": {},  # our own recipe is what the defaults say
    "siformer": {
        "train": {
            "epochs": 100,
            "batch_size": 24,
            "learning_rate": 1e-4,
            "weight_decay": 1e-8,
            "schedule": "multistep",
            "warmup_epochs": 0.0,
            "clip_gradient": 0.0,
            "label_smoothing": 0.0,
        },
        "augment": {"geometric": 0.5, "mirror": 0.0, "speed": 1.0},
    },
}


# Dots in the key of a setting, of which no key has as many.
_DEEPEST = 10


class Layer(NamedTuple):
    """Values that override what lies below, and what to call them when asked for their origin."""

    origin: str
    values: Tree


class Resolved(NamedTuple):
    """The settings in force, and for every dotted key the name of the layer it came from."""

    settings: Settings
    origins: dict[str, str]


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Lay the layers over the defaults and the recipe they name.

    Raises:
        UsageError: a key that does not exist, with the nearest one that does; or a value its
            setting cannot take.
    """
    expanded = [part for layer in layers for part in _with_preset(layer)]
    recipe = next(
        (layer.values["recipe"] for layer in reversed(expanded) if "recipe" in layer.values),
        Settings().recipe,
    )
    stack = [Layer(f"recipe {recipe}", _recipe(recipe)), *expanded]
    origins = dict.fromkeys(flatten(Settings().model_dump()), "default")
    for layer in stack:
        for key, value in flatten(layer.values).items():
            if isinstance(value, Mapping) and _is_section(key, origins):
                continue  # an empty section of a config file says nothing
            _check_key(key, origins, layer.origin)
            if _holds_nul(value):
                raise UsageError(f"{layer.origin}: {key} holds a NUL, which no name or path has")
            origins[key] = layer.origin
    try:
        settings = Settings.layered(*(layer.values for layer in stack))
    except ValidationError as error:
        raise UsageError(_explain(error, origins)) from None
    return Resolved(settings, origins)


def cmcl_name(settings: Settings) -> str:
    """The preset in force; `own lambdas` where single values differ from every preset."""
    cmcl = settings.cmcl
    values = CMCL_PRESETS[cmcl.preset]
    is_preset = all(getattr(cmcl, key) == value for key, value in values.items())
    return cmcl.preset if is_preset else "own lambdas"


def read_config(path: Path) -> Layer:
    """Read a TOML file of settings."""
    try:
        return Layer(f"config {path}", read_toml(path))
    except DataError as error:
        raise UsageError(f"--config {error}") from None


def read_overrides(assignments: Iterable[str]) -> list[Layer]:
    """Read `section.key=value` assignments; a value is TOML, or else plain text."""
    layers = []
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise UsageError(
                f"--set {assignment!r}: expected section.key=value, such as train.epochs=50"
            )
        if key.count(".") > _DEEPEST:
            raise UsageError(f"--set {key[:40]}...: no setting lies so deep")
        layers.append(Layer(f"--set {key.strip()}", nested(key.strip(), _read_value(text.strip()))))
    return layers


def nested(key: str, value: Any) -> dict[str, Any]:
    """A tree that holds one value: `nested("a.b", 1)` is `{"a": {"b": 1}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; an empty section is a value of its own."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The existing key that looks most like this one: its section, its name or its initials."""
    section, _, name = key.rpartition(".")

    def likeness(candidate: str) -> float:
        its_section, _, its_name = candidate.rpartition(".")
        initials = "".join(word[0] for word in its_name.split("_"))
        return (
            0.5 * difflib.SequenceMatcher(None, section, its_section).ratio()
            + difflib.SequenceMatcher(None, name, its_name).ratio()
            + (name == initials)
        )

    return max(known, key=likeness)


def _with_preset(layer: Layer) -> Iterator[Layer]:
    cmcl = layer.values.get("cmcl")
    preset = cmcl.get("preset") if isinstance(cmcl, Mapping) else None
    if isinstance(preset, str) and preset in CMCL_PRESETS:
        yield Layer(f"{layer.origin} (preset {preset})", {"cmcl": CMCL_PRESETS[preset]})
    yield layer


def _recipe(name: object) -> dict[str, Any]:
    if not isinstance(name, str) or name not in RECIPES:
        raise UsageError(f"recipe: {name!r} is not one of {', '.join(RECIPES)}")
    return RECIPES[name]


def _check_key(key: str, known: Mapping[str, str], origin: str) -> None:
    if key in known:
        return
    if _is_section(key, known):
        raise UsageError(f"{origin}: {key} is a section; set one of its keys, as {key}.name=value")
    raise UsageError(f"{origin}: no setting {key!r}; the nearest is {nearest_key(key, known)!r}")


def _holds_nul(value: object) -> bool:
    if isinstance(value, str | Path):
        return "\0" in str(value)
    if isinstance(value, Mapping):
        return any(map(_holds_nul, (*value.keys(), *value.values())))
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


def _is_section(key: str, known: Iterable[str]) -> bool:
    return any(candidate.startswith(f"{key}.") for candidate in known)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
        # A union reports one problem for each of its members, under the member's name.
        while key and key not in origins and "." in key:
            key = key.rpartition(".")[0]
        message = problem["msg"].removeprefix("Value error, ")
        value = (
            "" if isinstance(problem["input"], BaseModel | dict) else f", not {problem['input']!r}"
        )
        origin = f" (from {origins[key]})" if key in origins else ""
        problems.append(f"{key}: {message}{value}{origin}" if key else message)
    return "; ".join(dict.fromkeys(problems))


def _read_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text
