"""Save and load a model: tensors in safetensors, everything else as JSON in the file's metadata.

Nothing is pickled, so nothing in a file can run. `best.safetensors` holds the model and the loss's
projections; `last.safetensors` holds the whole state of a training.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from slrctl.engine.files import replacing
from slrctl.errors import DataError, SlrctlError
from slrctl.settings import Settings

FORMAT = "slrctl 1"


class Checkpoint(NamedTuple):
    """What a file holds: named tensors, the settings and classes behind them, the progress."""

    tensors: dict[str, Tensor]
    settings: Settings
    classes: tuple[str, ...]
    progress: dict[str, Any]


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    settings: Settings,
    classes: Sequence[str],
    progress: Mapping[str, Any],
) -> None:
    """Write a checkpoint; the one that was there stays until the new one is whole."""
    metadata = {
        "format": FORMAT,
        "settings": settings.model_dump_json(),
        "classes": json.dumps(list(classes)),
        "progress": json.dumps(progress),
    }
    with replacing(path) as unfinished:
        # Not save_file: it makes a file that only its owner may read.
        unfinished.write_bytes(
            save(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                metadata,
            )
        )


def load_checkpoint(path: Path, device: torch.device | None = None) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        SlrctlError: there is no such file.
        DataError: the file is damaged, or was not written by slrctl.
    """
    if not path.is_file():
        raise SlrctlError(f"{path}: no checkpoint there; a run writes one after its first epoch")
    try:
        with safe_open(path, framework="pt", device=str(device or "cpu")) as file:
            metadata = file.metadata() or {}
            # safe_open is no mapping: it has keys() and no iterator.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(
            f"{path}: damaged, or not a safetensors file ({error}); take the run's other one"
        ) from None
    if metadata.get("format") != FORMAT:
        raise DataError(
            f"{path}: its format is {metadata.get('format')!r}, expected {FORMAT!r}; "
            "it was not written by this slrctl"
        )
    return Checkpoint(
        tensors,
        Settings.model_validate_json(metadata["settings"]),
        tuple(json.loads(metadata["classes"])),
        json.loads(metadata["progress"]),
    )


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """The weights of modules, each under its name: `model.classifier.bias`."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put the tensors under a prefix back into a module; all must be there, and no other."""
    module.load_state_dict(
        {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{prefix}.")
        }
    )
