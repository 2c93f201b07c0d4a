"""Layers of settings, laid over one another in one fixed order; every value knows its layer.

Lowest first: defaults, recipe, `--config` file, `--cmcl` preset, ablation variant, `--set`, named
flags. A preset that a layer names lies just below that layer, so single values beside it win.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
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
    "slrctl": {},  # the defaults
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
        "augment": {
            "geometric": 0.5,
            "mirror": 0.0,
            "affine": 0.0,
            "jitter": 0.0,
            "noise": 0.001,
            "proportions": 0.0,
            "hand_size": 0.0,
            "time_warp": 0.0,
            "time_cut": 0.0,
            "speed": 1.0,
            "frame_dropout": 0.0,
            "hand_dropout": 0.0,
        },
        "prepare": {"letterbox": False, "trim_rest": False, "fill_gaps": 0, "num_frames": 0},
        "model": {"name": "siformer", "dropout": 0.1},
    },
}


# Dots in a key of `--set`; no setting has as many.
_DEEPEST = 10


class Layer(NamedTuple):
    """Values that override the layers below, and a name for where they come from."""

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
    stack: list[Layer] = []
    recipe: object = Settings().recipe
    for layer in layers:
        cmcl = layer.values.get("cmcl")
        preset = cmcl.get("preset") if isinstance(cmcl, Mapping) else None
        if isinstance(preset, str) and preset in CMCL_PRESETS:
            values = {"cmcl": CMCL_PRESETS[preset]}
            stack.append(Layer(f"{layer.origin} (preset {preset})", values))
        stack.append(layer)
        recipe = layer.values.get("recipe", recipe)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise UsageError(f"recipe: {recipe!r} is not one of {', '.join(RECIPES)}")
    stack.insert(0, Layer(f"recipe {recipe}", RECIPES[recipe]))

    origins = dict.fromkeys(flatten(Settings().model_dump()), "default")
    for origin, values in stack:
        for key, value in flatten(values).items():
            if key in origins:
                origins[key] = origin
            elif not any(known.startswith(f"{key}.") for known in origins):
                nearest = nearest_key(key, origins)
                raise UsageError(f"{origin}: no setting {key!r}; the nearest is {nearest!r}")
            elif not isinstance(value, Mapping):  # an empty section of a config file is fine
                raise UsageError(
                    f"{origin}: {key} is a section; set one of its keys, as {key}.name=value"
                )
    try:
        return Resolved(Settings.layered(*(layer.values for layer in stack)), origins)
    except ValidationError as error:
        raise UsageError(_explain(error, origins)) from None


def cmcl_name(settings: Settings) -> str:
    """Return the preset in force; `own lambdas` where single values differ from every preset."""
    cmcl = settings.cmcl
    values = CMCL_PRESETS[cmcl.preset]
    is_preset = all(getattr(cmcl, key) == value for key, value in values.items())
    return cmcl.preset if is_preset else "own lambdas"


def read_config(path: Path) -> Layer:
    """Read a TOML file of settings.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        return Layer(f"config {path}", read_toml(path))
    except DataError as error:
        raise UsageError(f"--config {error}") from None


def read_overrides(assignments: Iterable[str]) -> list[Layer]:
    """Read `section.key=value` assignments; a value is TOML, or else plain text.

    Raises:
        UsageError: one of them is not an assignment.
    """
    layers = []
    for assignment in assignments:
        key, separator, text = map(str.strip, assignment.partition("="))
        if not separator or not key:
            raise UsageError(
                f"--set {assignment!r}: expected section.key=value, such as train.epochs=50"
            )
        if key.count(".") > _DEEPEST:
            raise UsageError(f"--set {key[:40]}...: no setting lies so deep")
        try:
            value = parse_toml(f"value = {text}")["value"]
        except ValueError:
            value = text
        layers.append(Layer(f"--set {key}", nested(key, value)))
    return layers


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return a tree that holds one value: `nested("a.b", 1)` is `{"a": {"b": 1}}`."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Return dotted keys and their values; an empty section is a value of its own."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nearest_key(key: str, known: Iterable[str]) -> str:
    """Return the existing key most similar to this one: by its section, its name or initials."""
    section, _, name = key.rpartition(".")

    def similarity(candidate: str) -> float:
        its_section, _, its_name = candidate.rpartition(".")
        initials = "".join(word[0] for word in its_name.split("_"))
        return (
            0.5 * difflib.SequenceMatcher(None, section, its_section).ratio()
            + difflib.SequenceMatcher(None, name, its_name).ratio()
            + (name == initials)
        )

    return max(known, key=similarity)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Describe every problem in one line: key, rule, value and layer."""
    problems = []
    for problem in error.errors():
        key = ".".join(name for name in problem["loc"] if isinstance(name, str))
        # A union reports one problem for each of its members, under the member's name.
        while "." in key and key not in origins:
            key = key.rpartition(".")[0]
        text, value = problem["msg"].removeprefix("Value error, "), problem["input"]
        if not isinstance(value, BaseModel | dict):
            text += f", not {value!r}"
        if key in origins:
            text += f" (from {origins[key]})"
        problems.append(f"{key}: {text}" if key else text)
    return "; ".join(dict.fromkeys(problems))
