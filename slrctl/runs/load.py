"""The trained model of a run, ready to predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from slrctl.core.devices import choose_device
from slrctl.core.model import SiFormer, Spoter, build_model
from slrctl.errors import DataError, SlrctlError
from slrctl.layers import Layer, resolve
from slrctl.runs.checkpoint import is_intact, load_checkpoint, load_module
from slrctl.runs.folder import BEST, LAST, PREVIOUS, SETTINGS, folder_of, read_settings
from slrctl.settings import Settings

# Sections that may differ from the checkpoint's: where clips lie, and how they are judged.
_MAY_DIFFER = ("data", "evaluate")


class LoadedRun(NamedTuple):
    """A trained model, ready to predict, with the settings and classes it was trained with."""

    model: SiFormer | Spoter
    settings: Settings
    classes: tuple[str, ...]


def load_run(run_dir: Path | str, device: torch.device | None = None) -> LoadedRun:
    """Load the best model of a run, or that of one of its checkpoints, in evaluation mode.

    Args:
        run_dir: folder of the run, or a checkpoint in it.
        device: where the model is to be; the CPU if absent.

    Raises:
        SlrctlError: the folder is not a run, or has no checkpoint yet.
        DataError: the checkpoint is damaged; the message names one that is whole.
    """
    path = Path(run_dir)
    run_dir = folder_of(path)
    if not (run_dir / SETTINGS).is_file():
        raise SlrctlError(
            f"{run_dir}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        )
    path = run_dir / BEST if run_dir == path else path
    try:
        checkpoint = load_checkpoint(path)
    except DataError as error:
        others = (path.with_name(name) for name in (BEST, LAST, PREVIOUS))
        whole = [str(other) for other in others if other != path and is_intact(other)]
        advice = f"whole is {whole[0]}" if whole else "the run has no whole checkpoint"
        raise DataError(f"{error}; {advice}") from None
    model = build_model(checkpoint.settings.model, len(checkpoint.classes))
    try:
        load_module(model, checkpoint.tensors, "model")
    except ValueError as error:
        raise DataError(
            f"{path}: holds no model of its settings ({error}); train again with --force"
        ) from None
    return LoadedRun(
        model.to(device or torch.device("cpu")).eval(), checkpoint.settings, checkpoint.classes
    )


class AskedRun(NamedTuple):
    """A run that a command was asked about.

    `own` are the settings it was made with, by which its own clips are found; `settings` those with
    what the command line lays over them.
    """

    run_dir: Path
    run: LoadedRun
    own: Settings
    settings: Settings
    device: torch.device


def load_asked(path: Path, asked: Sequence[Layer]) -> AskedRun:
    """Load a run's best model, or one of its checkpoints.

    Raises:
        SlrctlError: it is no run, or has no checkpoint yet.
        DataError: its settings file does not belong to its checkpoint.
        UsageError: what is asked for cannot be set.
    """
    run_dir = folder_of(path)
    saved = Layer(f"run {run_dir}", read_settings(run_dir))
    own, settings = resolve([saved]).settings, resolve([saved, *asked]).settings
    device = choose_device(settings.train.device)
    run = load_run(path, device)
    changed = [
        name
        for name, value in own
        if name not in _MAY_DIFFER and value != getattr(run.settings, name)
    ]
    if changed:
        raise DataError(
            f"{run_dir}: {SETTINGS} tells another {' and '.join(changed)} than its checkpoint was "
            "trained with; put the file back as it was"
        )
    return AskedRun(run_dir, run, own, settings, device)
