"""The folder of a run: what is in it, how it is made, found and read back."""

import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit
import torch

from slrctl.core.model import SiFormer, Spoter, build_model
from slrctl.engine.checkpoint import load_checkpoint, load_module
from slrctl.engine.files import replacing
from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.settings import Settings

SETTINGS = "settings.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
BEST = "best.safetensors"
LAST = "last.safetensors"
PREDICTIONS = "predictions.parquet"
CURVES = "curves.png"
EVALUATION = "evaluation-"
FILES = (SETTINGS, ENVIRONMENT, METRICS, SUMMARY, BEST, LAST, PREDICTIONS, CURVES)


class LoadedRun(NamedTuple):
    """A trained model, ready to predict, with the settings and classes it was trained with."""

    model: SiFormer | Spoter
    settings: Settings
    classes: tuple[str, ...]


def free_run_dir(runs_dir: Path, name: str) -> Path:
    """The first of name, name-2, name-3, ... that does not exist yet."""
    candidate, number = runs_dir / name, 2
    while candidate.exists():
        candidate, number = runs_dir / f"{name}-{number}", number + 1
    return candidate


def check_run_dir(run_dir: Path, *, force: bool) -> None:
    """Refuse to write over what is there, unless it is a run and `force` was given.

    Raises:
        UsageError: the folder is not empty.
    """
    if run_dir.is_file():
        raise UsageError(
            f"{run_dir}: is a file, and a run needs a folder; choose another --run-dir"
        )
    if not run_dir.is_dir() or not any(run_dir.iterdir()):
        return
    if not (run_dir / SETTINGS).is_file():
        raise UsageError(f"{run_dir}: holds other files and is not a run; choose another --run-dir")
    if not force:
        raise UsageError(
            f"{run_dir}: holds a run already; choose another --name, or overwrite it with --force"
        )


def start_run_dir(run_dir: Path, settings: Settings, environment: Mapping[str, Any]) -> None:
    """Make the folder, remove what an earlier run left in it, and write down what is to be run."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (run_dir / name).unlink(missing_ok=True)
        for summary in run_dir.glob(f"{EVALUATION}*/metrics.json"):
            shutil.rmtree(summary.parent)  # the numbers of another model
        write_text(run_dir / SETTINGS, settings_toml(settings))
        write_json(run_dir / ENVIRONMENT, environment)
    except OSError as error:
        raise SlrctlError(
            f"{run_dir}: cannot be written ({error.strerror}); choose another --run-dir"
        ) from None


def settings_toml(settings: Settings) -> str:
    """The whole tree as TOML; a value that is None is left out, for TOML has no such thing."""

    def without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: without_none(value) if isinstance(value, Mapping) else value
            for key, value in tree.items()
            if value is not None
        }

    return tomlkit.dumps(without_none(settings.model_dump(mode="json")))


def read_settings(run_dir: Path) -> dict[str, Any]:
    """The layer of settings a run was trained with."""
    path = run_dir / SETTINGS
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise SlrctlError(
            f"{run_dir}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a TOML file any more ({error})") from None


def read_fingerprints(run_dir: Path) -> dict[str, str]:
    """The fingerprint of each part of the data a run was made with."""
    path = run_dir / ENVIRONMENT
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["data"]
        return {name: part["fingerprint"] for name, part in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path}: cannot be read as what slrctl train wrote; name clips with --data"
        ) from None


def newest_run(runs_dir: Path) -> Path:
    """The run whose best checkpoint was written last."""
    checkpoints = list(runs_dir.glob(f"*/{BEST}"))
    if not checkpoints:
        raise SlrctlError(
            f"{runs_dir}: no finished run in it; train one with slrctl train, or name a run"
        )
    return max(checkpoints, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent


def load_run(run_dir: Path | str, device: torch.device | None = None) -> LoadedRun:
    """Load the best model of a run, in evaluation mode.

    Raises:
        SlrctlError: the folder is not a run, or has no checkpoint yet.
        DataError: the checkpoint is damaged.
    """
    run_dir = Path(run_dir)
    if not (run_dir / SETTINGS).is_file():
        raise SlrctlError(
            f"{run_dir}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        )
    checkpoint = load_checkpoint(run_dir / BEST)
    model = build_model(checkpoint.settings.model, len(checkpoint.classes))
    load_module(model, checkpoint.tensors, "model")
    return LoadedRun(
        model.to(device or torch.device("cpu")).eval(), checkpoint.settings, checkpoint.classes
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that a person can read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON object to a file of lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
