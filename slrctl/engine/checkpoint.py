"""Save and load a model: tensors in safetensors, everything else as JSON in the file's metadata.

Nothing is pickled, so nothing in a file can run. `best.safetensors` holds the model and the loss's
projections; `last.safetensors` holds the whole state of a training. A checksum covers every byte,
and equal contents give equal bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from slrctl.engine.checksum import BLANK, has_place, is_whole, with_checksum
from slrctl.engine.files import replacing
from slrctl.errors import DataError, SlrctlError
from slrctl.settings import Settings
from slrctl.text_files import parse_json

FORMAT = "slrctl 2"
_WITHOUT_CHECKSUM = "slrctl 1"
# safetensors writes the entries of its metadata in any order, so there is one only.
_ENTRY = "slrctl"
_PICKLES = (b"\x80", b"PK\x03\x04")  # a bare one, and the archive torch.save makes


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
    content = checkpoint_bytes(tensors, settings, classes, progress)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def checkpoint_bytes(
    tensors: Mapping[str, Tensor],
    settings: Settings,
    classes: Sequence[str],
    progress: Mapping[str, Any],
) -> bytes:
    """The content of a checkpoint's file."""
    facts = {
        "checksum": BLANK,  # the first, where it is looked for
        "format": FORMAT,
        "settings": settings.model_dump(mode="json"),
        "classes": list(classes),
        "progress": progress,
    }
    return with_checksum(
        safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {_ENTRY: json.dumps(facts)},
        )
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU.

    Raises:
        SlrctlError: there is no such file, or it cannot be read.
        DataError: the file is damaged, or was not written by slrctl.
    """
    if not path.is_file():
        raise SlrctlError(f"{path}: no checkpoint there; a run writes one after its first epoch")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SlrctlError(f"{path}: cannot be read ({error.strerror})") from None
    _refuse_pickle(path, content)
    if has_place(content):
        if not is_whole(content):
            raise DataError(f"{path}: damaged (its checksum is not that of its content)")
        facts = json.loads(_metadata(content)[_ENTRY])
        tensors = safetensors.torch.load(content)
    else:
        facts, tensors = _load_without_checksum(path)
    if facts.get("format") not in (FORMAT, _WITHOUT_CHECKSUM):
        raise DataError(
            f"{path}: its format is {facts.get('format')!r}, expected {FORMAT!r}; it was not "
            "written by this slrctl, or is damaged"
        )
    try:
        settings = Settings.model_validate(facts["settings"])
    except ValidationError as error:
        raise DataError(
            f"{path}: its settings are those of another version of slrctl "
            f"({error.error_count()} unknown or wrong); use that version, or train again"
        ) from None
    return Checkpoint(tensors, settings, tuple(facts["classes"]), facts["progress"])


def refuse_pickle(path: Path) -> None:
    """Refuse a file that torch or pickle wrote, by its first bytes.

    Raises:
        DataError: it is one.
    """
    if path.is_file():
        try:
            with path.open("rb") as file:
                beginning = file.read(9)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        _refuse_pickle(path, beginning)


def is_intact(path: Path) -> bool:
    """Whether a checkpoint could be loaded."""
    try:
        load_checkpoint(path)
    except SlrctlError:
        return False
    return True


def _refuse_pickle(path: Path, content: bytes) -> None:
    # A safetensors file begins with the length of its header, which may be any byte, and a brace.
    if content.startswith(_PICKLES) and content[8:9] != b"{":
        raise DataError(
            f"{path}: a pickled file, which could run code when it is loaded; nothing of it was "
            "run, for slrctl reads only the safetensors files that slrctl train writes"
        )


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file whose checksum was right."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _load_without_checksum(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the first format holds, which had each fact in an entry of its own."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # safe_open is no mapping: it has keys() and no iterator.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"{path}: damaged, or not a safetensors file ({error})") from None
    if metadata.get("format") != _WITHOUT_CHECKSUM:
        return {"format": metadata.get("format")}, {}
    facts: dict[str, Any] = {"format": _WITHOUT_CHECKSUM}
    try:
        return facts | {
            k: parse_json(metadata[k]) for k in ("settings", "classes", "progress")
        }, tensors
    except (KeyError, ValueError):
        raise DataError(f"{path}: damaged (its metadata cannot be read)") from None


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
