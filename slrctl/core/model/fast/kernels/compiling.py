"""How kernels are compiled: by numba, when they are first called, and kept for later processes."""

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config
from numba.core.codegen import get_host_cpu_features

from slrctl.files import user_cache_folder

# What a compiler may assume of sums: that they can be taken in any order. It must not assume that
# there is no NaN, for a training that diverges is noticed by it.
_ANY_ORDER = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS = {"nogil": True, "fastmath": _ANY_ORDER, "error_model": "numpy"}
_config: Any = numba_config


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers to machine code; it runs without Python's lock."""
    # A checker of shapes may have wrapped it; machine code is checked where it is called from.
    function = inspect.unwrap(function)
    try:
        with _kept_in(_folder()):
            return _forgiving(numba.njit(cache=True, **_OPTIONS)(function))
    except RuntimeError:  # nothing can be written anywhere: compiled anew in every process
        return numba.njit(**_OPTIONS)(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Something that kernels are made of: it becomes code of each one that calls it.

    Were it a function of its own, a process that compiles a kernel would run another copy of it,
    with other roundings, than one that reads the kernel from its file.
    """
    return numba.njit(forceinline=True, **_OPTIONS)(inspect.unwrap(function))


def has_wide_registers() -> bool:
    """Whether code is compiled for registers of 16 float32 numbers."""
    features = _config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    return "+avx512f" in features.split(",")


def _forgiving(compiled: Any) -> Callable[..., Any]:
    """Compile anew what cannot be read again, and go on where it cannot be kept: a full disk."""
    for name in ("load_overload", "save_overload"):
        setattr(compiled._cache, name, _none_on_failure(getattr(compiled._cache, name)))
    return compiled


def _none_on_failure(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with suppress(Exception):
            return method(*arguments)

    return call


@cache
def _folder() -> Path:
    """Where machine code of these sources is kept: where Python's own is, or the user's caches are.

    Code of one file holds that of others which it calls, and their constants, and numba looks at
    changes of the one only; so all that belongs together has a folder of its own.
    """
    here = Path(__file__).parent
    sources = hashlib.blake2b(digest_size=8)
    for path in sorted(here.parent.rglob("*.py")):
        sources.update(path.read_bytes())
    bytecode = here / "__pycache__"
    is_writable = os.access(bytecode if bytecode.exists() else here, os.W_OK)
    chosen = _config.CACHE_DIR or (bytecode if is_writable else user_cache_folder())
    return Path(chosen) / f"kernels-{sources.hexdigest()}"


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let numba choose this folder inside the block, and afterwards as before."""
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _config.CACHE_DIR = before
