"""The trained model of a run, ready to predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from slrctl.core.devices import choose_device
from slrctl.core.model import SiFormer, Spoter, build_model
from slrctl.errors import DataError, SlrctlError
from slrctl.layers import Layer, resolve
from slrctl.runs.checkpoint import Checkpoint, is_intact, load_checkpoint, load_module
from slrctl.runs.folder import BEST, LAST, PREVIOUS, SETTINGS, folder_of
from slrctl.settings import Settings


class LoadedRun(NamedTuple):
    """A trained model, ready to predict, with the settings and classes it was trained with."""

    model: SiFormer | Spoter
    settings: Settings
    classes: tuple[str, ...]


class RunWithLayers(NamedTuple):
    """A loaded run, and its settings with further layers laid over those it was trained with."""

    run_dir: Path
    run: LoadedRun
    settings: Settings
    device: torch.device


def load_run(run_dir: Path | str, device: torch.device | None = None) -> LoadedRun:
    """Load the best model of a run, or that of one of its checkpoints, in evaluation mode.

    Args:
        run_dir: folder of the run, or a checkpoint in it.
        device: of the model; the CPU if absent.

    Raises:
        SlrctlError: the folder is not a run, or has no checkpoint yet.
        DataError: the checkpoint is damaged; the message names one that is whole.
    """
    return _build(*_read(Path(run_dir)), device or torch.device("cpu"))


def load_with_layers(run: Path, layers: Sequence[Layer]) -> RunWithLayers:
    """Load a run with settings for its use, such as the device or the way a file is read.

    Raises:
        SlrctlError: as in `load_run`.
        UsageError: a layer cannot be laid over the settings of the run.
    """
    path, checkpoint = _read(run)
    trained = Layer(f"run {run}", checkpoint.settings.model_dump(exclude_none=True))
    settings = resolve([trained, *layers]).settings
    device = choose_device(settings.train.device)
    return RunWithLayers(path.parent, _build(path, checkpoint, device), settings, device)


def _read(run: Path) -> tuple[Path, Checkpoint]:
    is_run = folder_of(run) == run
    if is_run and not (run / SETTINGS).is_file():
        raise SlrctlError(
            f"{run}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        )
    path = run / BEST if is_run else run
    try:
        return path, load_checkpoint(path)
    except DataError as error:
        others = (path.with_name(name) for name in (BEST, LAST, PREVIOUS))
        whole = [str(other) for other in others if other != path and is_intact(other)]
        advice = f"whole is {whole[0]}" if whole else "the run has no whole checkpoint"
        raise DataError(f"{error}; {advice}") from None


def _build(path: Path, checkpoint: Checkpoint, device: torch.device) -> LoadedRun:
    model = build_model(checkpoint.settings.model, len(checkpoint.classes))
    try:
        load_module(model, checkpoint.tensors, "model")
    except ValueError as error:
        raise DataError(
            f"{path}: holds no model of its settings ({error}); train again with --force"
        ) from None
    return LoadedRun(model.to(device).eval(), checkpoint.settings, checkpoint.classes)
