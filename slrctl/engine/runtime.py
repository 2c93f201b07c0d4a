"""Where and in which arithmetic a model runs."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from slrctl.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The named device, or for `auto` an accelerator where there is one."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator()
        is_there = accelerator is not None and torch.accelerator.is_available()
        return accelerator if is_there and accelerator is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device {name!r} cannot be used here ({reason}); pass --device cpu, or auto"
        ) from None
    if device.type == "meta":
        raise UsageError("device 'meta' holds no numbers to train on; pass --device cpu, or auto")
    return device


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context a training step runs in: nothing for fp32, bfloat16 autocast for bf16."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use only algorithms that give the same bits again; as before afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    is_filled = torch._C._get_deterministic_fill_uninitialized_memory()
    # The public call also sets an option of torch's compiler, which takes two seconds to import and
    # is never used here.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    # It would write NaN into every new tensor, a pass over all memory, to show who reads too early.
    torch._C._set_deterministic_fill_uninitialized_memory(False)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before, warn_only=only_warned)
        torch._C._set_deterministic_fill_uninitialized_memory(is_filled)


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees for its next allocation of the same size.

    glibc hands blocks of 32 MB and more back to the system, which clears every page again for the
    next step: a third of a training step at 204 frames went into that. Elsewhere than on Linux
    with glibc nothing happens; the calls change no result.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        # Threads share one heap: an own one holds blocks of up to 64 MB, and is given back.
        libc.mallopt(_M_ARENA_MAX, 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # their numbers in malloc.h


def describe_device(device: torch.device) -> str:
    """A device in words, for the header of a run and for `environment.json`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return str(device)
