"""The trained model of a run, ready to predict."""

from pathlib import Path
from typing import NamedTuple

import torch

from slrctl.core.model import SiFormer, Spoter, build_model
from slrctl.engine.checkpoint import is_intact, load_checkpoint, load_module
from slrctl.engine.run_folder import BEST, LAST, PREVIOUS, SETTINGS, folder_of
from slrctl.errors import DataError, SlrctlError
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


def check_same_settings(run: LoadedRun, told: Settings, run_dir: Path) -> None:
    """Make sure that a model was trained with what the settings file in its folder tells.

    Raises:
        DataError: it was not.
    """
    changed = [
        name
        for name, value in told
        if name not in _MAY_DIFFER and value != getattr(run.settings, name)
    ]
    if changed:
        raise DataError(
            f"{run_dir}: {SETTINGS} tells another {' and '.join(changed)} than its checkpoint was "
            "trained with; put the file back as it was"
        )
