"""Checkpoints, and the trained models in them: a safetensors file with JSON in its metadata.

Nothing is pickled, so nothing in a file can run. `best.safetensors` holds the model and the loss's
projections, `last.safetensors` the whole state of a training. A checksum covers all content, and
equal content gives equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from slrctl.core.devices import choose_device
from slrctl.core.model.build import Model, build_model
from slrctl.errors import DataError, SlrctlError
from slrctl.files import parse_json, replacing
from slrctl.layers import Layer, resolve
from slrctl.runs.folder import BEST, LAST, PREVIOUS, SETTINGS, folder_of, read_settings
from slrctl.settings import Settings

# The only entry of the metadata: safetensors writes several in any order.
_ENTRY = "slrctl"
# Sections of a run's settings that may be edited: where clips lie, and how they are judged.
_EDITABLE = ("data", "evaluate")
_PICKLES = (b"\x80", b"PK\x03\x04")  # a bare pickle, and the archive that torch.save writes


class Checkpoint(NamedTuple):
    """Named tensors, the settings and classes behind them, and the progress of the training."""

    tensors: dict[str, Tensor]
    settings: Settings
    classes: tuple[str, ...]
    progress: dict[str, Any]


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid")

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
    """Write a checkpoint; the file that was there stays until the new one is whole."""
    content = checkpoint_bytes(tensors, settings, classes, progress)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def checkpoint_bytes(
    tensors: Mapping[str, Tensor],
    settings: Settings,
    classes: Sequence[str],
    progress: Mapping[str, Any],
) -> bytes:
    """Return the content of a checkpoint's file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = json.dumps(
        {
            "settings": settings.model_dump(mode="json"),
            "classes": list(classes),
            "progress": progress,
        }
    )
    entry = f"{_checksum(tensors, metadata)} {metadata}"
    return safetensors.torch.save(tensors, {_ENTRY: entry})


def _checksum(tensors: dict[str, Tensor], metadata: str) -> str:
    content = safetensors.torch.save(tensors) + metadata.encode()
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU.

    Raises:
        SlrctlError: there is no such file, or it cannot be read.
        DataError: the file is damaged, or was not written by this version of slrctl.
    """
    if not path.is_file():
        raise SlrctlError(f"{path}: no checkpoint there; a run writes one after its first epoch")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SlrctlError(f"{path}: cannot be read ({error.strerror})") from None
    # A safetensors file begins with the length of its header, which may be any byte, and a brace.
    if content.startswith(_PICKLES) and content[8:9] != b"{":
        raise DataError(
            f"{path}: a pickled file, which could run code when it is loaded; nothing of it was "
            "run, for slrctl reads only the safetensors files that slrctl train writes"
        )
    try:
        tensors = safetensors.torch.load(content)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
        checksum, _, metadata = header["__metadata__"][_ENTRY].partition(" ")
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged, or not written by slrctl ({error})") from None
    if checksum != _checksum(tensors, metadata):
        raise DataError(f"{path}: damaged (its checksum is not that of its content)")
    try:
        # Not pydantic's JSON: the best loss of a training that has none yet is infinite.
        facts = _Metadata.model_validate(json.loads(metadata))
    except (ValidationError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: written by another version of slrctl ({why})") from None
    return Checkpoint(tensors, facts.settings, facts.classes, facts.progress)


def is_intact(path: Path) -> bool:
    """Return True if a checkpoint can be loaded."""
    try:
        load_checkpoint(path)
    except SlrctlError:
        return False
    return True


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of modules by name, such as `model.classifier.bias`."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Load the tensors under a prefix into a module; all must be there, and no other.

    Raises:
        ValueError: one is missing or one too many, or of another shape or type, or not finite.
    """
    given = {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }
    own = module.state_dict()
    if different := given.keys() ^ own.keys():
        raise ValueError(f"{prefix}.{min(different)} is missing, or one too many")
    for name, tensor in given.items():
        check_tensor(f"{prefix}.{name}", tensor, own[name])
    module.load_state_dict(given)


def check_tensor(name: str, given: Tensor, own: Tensor) -> None:
    """Make sure that a tensor of a file can replace one of a training.

    Raises:
        ValueError: it is of another shape or type, or holds NaN or infinity.
    """
    if (given.shape, given.dtype) != (own.shape, own.dtype):
        raise ValueError(
            f"{name} is {given.dtype} of shape {tuple(given.shape)}, expected {own.dtype} of "
            f"{tuple(own.shape)}"
        )
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"{name} holds NaN or infinity")


class LoadedRun(NamedTuple):
    """A trained model, ready to predict, with the settings and classes it was trained with."""

    model: Model
    settings: Settings
    classes: tuple[str, ...]


class RunWithLayers(NamedTuple):
    """A loaded run, and its settings with further layers laid over those it was trained with."""

    run_dir: Path
    run: LoadedRun
    settings: Settings
    device: torch.device


def load_run(run_dir: Path | str, device: torch.device | None = None) -> LoadedRun:
    """Load the best model of a run, or of the checkpoint named, on the CPU if no device is given.

    Raises:
        SlrctlError: the folder is not a run, or has no checkpoint yet.
        DataError: the checkpoint is damaged; the message names one that is whole.
    """
    return _build(*_read(Path(run_dir)), device or torch.device("cpu"))


def load_with_layers(run: Path, layers: Sequence[Layer]) -> RunWithLayers:
    """Load a run with settings for its use, such as the device or the way a file is read.

    Raises:
        SlrctlError: the folder is not a run, or has no checkpoint yet.
        DataError: the checkpoint is damaged, or was trained with other settings than the run's.
    """
    path, checkpoint = _read(run)
    saved = Layer(f"run {run}", read_settings(path.parent))
    own, settings = resolve([saved]).settings, resolve([saved, *layers]).settings
    for section, value in own:
        if section not in _EDITABLE and value != getattr(checkpoint.settings, section):
            raise DataError(
                f"{path.parent / SETTINGS}: has another {section} than {path.name} was trained "
                "with; put the file back as it was"
            )
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
