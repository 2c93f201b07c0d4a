"""Device, precision, determinism and threads of what a model computes."""

import ctypes
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from typing import Any, Literal, TypeVar

import torch

from slrctl.errors import UsageError
from slrctl.settings import Settings


def choose_device(name: str) -> torch.device:
    """Return the named device, or for `auto` an accelerator where there is one."""
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


def choose_precision(name: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the named precision, or for `auto` bf16 on a GPU with instructions for it."""
    if name == "auto":
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if is_fast else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def resolve_precision(settings: Settings, device: torch.device) -> Settings:
    """Replace `auto` precision by the one that a training on this device takes."""
    precision = choose_precision(settings.train.precision, device)
    train = settings.train.model_copy(update={"precision": precision})
    return settings.model_copy(update={"train": train})


def arithmetic(settings: Settings, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a training step: bfloat16 autocast for bf16."""
    if settings.train.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use only algorithms that repeat to the bit; as before afterwards."""
    before = torch.get_deterministic_debug_mode()
    options: Any = torch.utils.deterministic
    is_filled = options.fill_uninitialized_memory
    # Not `use_deterministic_algorithms`, which imports torch's compiler, a second's work.
    torch.set_deterministic_debug_mode("warn")
    # Torch would write NaN into every new tensor, to show which are read too early.
    options.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        options.fill_uninitialized_memory = is_filled


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees for its next allocation of the same size.

    glibc hands large blocks back to the system, which clears every page again for the next step:
    16 % of the processor time of a training step at 30 frames, 5 % at 204. Elsewhere than on
    Linux with glibc nothing happens; the calls change no result.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        # Threads share one heap: an own one holds blocks of up to 64 MB, and is given back.
        libc.mallopt(_M_ARENA_MAX, 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # their numbers in malloc.h


def describe_device(device: torch.device) -> str:
    """Describe a device in words, for the header of a run and for `environment.json`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return str(device)


Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with this thread alone, so that sums do not depend on how many it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)  # which threads that start later take over


def map_on(
    device: torch.device,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    at_once: int | None = None,
) -> Iterator[Result]:
    """Yield the results in the order of the items.

    On a CPU as many items are computed at a time as torch has threads, each with one of them, and
    so is what the caller computes between results: no bit depends on the number of threads. An
    accelerator does one thing after the other.

    Args:
        device: on which the function computes.
        function: draws random numbers from a generator of its own only; gradients are recorded
            unless it says otherwise, for torch asks each thread.
        items: taken as they are needed, two for each thread.
        at_once: items computed at a time, at most.
    """
    if device.type != "cpu":
        yield from map(function, items)
        return
    num_threads = min(torch.get_num_threads(), at_once or torch.get_num_threads())
    with one_thread():
        if num_threads == 1:
            yield from map(function, items)
            return
        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(num_threads, "slrctl", torch.set_num_threads, (1,)) as pool:
            for item in items:
                waiting.append(pool.submit(copy_context().run, function, item))
                if len(waiting) == 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
