"""Save and load a model: tensors in safetensors, everything else as JSON in the file's metadata.

Nothing is pickled, so nothing in a file can run. `best.safetensors` holds the model and the loss's
projections; `last.safetensors` holds the whole state of a training. A checksum covers every byte,
and equal contents give equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from slrctl.errors import DataError, SlrctlError
from slrctl.files import parse_json, replacing
from slrctl.settings import Settings

BLANK = "0" * 64
"""What a writer puts in the place of the checksum before there is one."""
# As JSON inside JSON looks, where the checksum is the inner one's first value.
_MARK = b'{\\"checksum\\": \\"'
# The mark stands near the beginning of a file, before anything that a user has named.
_SEARCHED = 256


def has_place(content: bytes) -> bool:
    """Whether there is a place for a checksum at all."""
    return _place(content) is not None


def with_checksum(content: bytes) -> bytes:
    """Fill the place of the checksum.

    Raises:
        ValueError: there is none.
    """
    place = _place(content)
    if place is None:
        raise ValueError("the content has no place for a checksum")
    return content[: place.start] + _digest(content, place) + content[place.stop :]


def is_whole(content: bytes) -> bool:
    """Whether this is to the bit what `with_checksum` made."""
    place = _place(content)
    return place is not None and content[place.start : place.stop] == _digest(content, place)


def _place(content: bytes) -> slice | None:
    start = content.find(_MARK, 0, _SEARCHED)
    return None if start < 0 else slice(start + len(_MARK), start + len(_MARK) + len(BLANK))


def _digest(content: bytes, place: slice) -> bytes:
    whole = memoryview(content)
    digest = hashlib.blake2b(digest_size=len(BLANK) // 2)
    for part in (whole[: place.start], BLANK.encode(), whole[place.stop :]):
        digest.update(part)
    return digest.hexdigest().encode()


FORMAT = "slrctl 2"
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
    if not has_place(content):
        raise DataError(f"{path}: damaged, or not written by this slrctl (it has no checksum)")
    if not is_whole(content):
        raise DataError(f"{path}: damaged (its checksum is not that of its content)")
    facts, tensors = _load_checked(path, content)
    if facts.get("format") != FORMAT:
        raise DataError(
            f"{path}: its format is {facts.get('format')!r}, expected {FORMAT!r}; it was not "
            "written by this slrctl, or is damaged"
        )
    if not facts.keys() >= {"settings", "classes", "progress"}:
        raise _not_ours(path)
    try:
        settings = Settings.model_validate(facts["settings"])
    except ValidationError as error:
        raise DataError(
            f"{path}: its settings are those of another version of slrctl "
            f"({error.error_count()} unknown or wrong); use that version, or train again"
        ) from None
    classes, progress = facts["classes"], facts["progress"]
    are_names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not (are_names and isinstance(progress, dict)):
        raise _not_ours(path)
    return Checkpoint(tensors, settings, tuple(classes), progress)


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


def _load_checked(path: Path, content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file holds whose checksum was right, which anybody can make."""
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        header = parse_json(content[8 : 8 + length].decode())
        # Python's own JSON: the best loss of a training that has none yet is infinite.
        facts = json.loads(header["__metadata__"][_ENTRY])
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError):
        raise _not_ours(path) from None
    if not isinstance(facts, dict):
        raise _not_ours(path)
    return facts, tensors


def _not_ours(path: Path) -> DataError:
    return DataError(f"{path}: damaged, or not written by slrctl (its metadata cannot be read)")


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """The weights of modules, each under its name: `model.classifier.bias`."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put the tensors under a prefix back into a module; all must be there, and no other.

    Raises:
        ValueError: they are not, or one is of another shape or type, or not finite.
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
    """Make sure that a tensor of a file can take the place of one of a training.

    Raises:
        ValueError: it is of another shape or type, or holds what is not finite.
    """
    if (given.shape, given.dtype) != (own.shape, own.dtype):
        raise ValueError(
            f"{name} is {given.dtype} of shape {tuple(given.shape)}, expected {own.dtype} of "
            f"{tuple(own.shape)}"
        )
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"{name} holds NaN or infinity")
