"""Where and in which arithmetic a model runs."""

import ctypes
import gc
import itertools
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from typing import Any, Literal, TypeVar

import torch
from torch.profiler import record_function

from slrctl.errors import UsageError
from slrctl.settings import Settings


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


def choose_precision(name: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """The named precision, or for `auto` the one that the device computes faster in."""
    if name == "auto":
        return "bf16" if _is_fast_in_bf16(device) else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def _is_fast_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    processor = cpu_capabilities()
    # Matrix units, or AMD's way with AVX-512: products are twice as fast as in fp32 and more. On an
    # Intel processor that has the instructions of AVX-512 alone they take twice the time.
    return bool(
        processor.get("amx_bf16", False)
        or (processor.get("avx512_bf16", False) and processor["cpu_name"].startswith("AMD"))
    )


def cpu_capabilities() -> Mapping[str, Any]:
    """The name of this processor and its instruction sets; nothing from an older torch."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def settled(settings: Settings, device: torch.device) -> Settings:
    """The settings of a training on this device, with `auto` precision replaced by what it took."""
    precision = choose_precision(settings.train.precision, device)
    train = settings.train.model_copy(update={"precision": precision})
    return settings.model_copy(update={"train": train})


def has_cpu_kernels(settings: Settings, device: torch.device) -> bool:
    """True if a training computes with the compiled kernels of `core.model.cpu`."""
    return settings.train.cpu_kernels and device.type == "cpu" and settings.model.dropout > 0


def arithmetic(settings: Settings, device: torch.device) -> AbstractContextManager[object]:
    """The context of a training step: bfloat16 autocast for bf16, unless kernels do without."""
    if settings.train.precision == "bf16" and not has_cpu_kernels(settings, device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def phase(name: str) -> AbstractContextManager[object]:
    """A part of a step, named for a profiler; without one nothing happens, which is cheaper."""
    if torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
        return record_function(name)
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


@contextmanager
def spared_from_collection() -> Iterator[None]:
    """Keep Python's garbage collector from going through all there is at the beginning.

    With its libraries a training has 280,000 objects, which stay. To go through them holds all
    threads for longer than a short step takes, once in some thirty steps.
    """
    is_first = gc.get_freeze_count() == 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if is_first:  # else somebody else has asked for it
            gc.unfreeze()


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


# How long, in seconds, a thread may keep Python's lock from another that has come back from its
# operation. At Python's own 5 ms a step of short clips takes a tenth longer.
_TURN = 2e-4

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results in the order of the items, as many at a time as torch has threads.

    A thread computes as if it were alone, so results do not depend on how many there are; not even
    a single item gets more than one, for operations are too short to be worth a meeting. So does
    the caller, with each result while later ones are computed. A profiler sees one thread, so it is
    shown the same work one after the other.

    Args:
        function: draws random numbers from a generator of its own only; whether gradients are
            recorded is its own matter too, for torch asks each thread.
        items: taken up as they are needed, two for each thread.
    """
    items, num_threads = iter(items), torch.get_num_threads()
    first = list(itertools.islice(items, num_threads))
    items = itertools.chain(first, items)
    if len(first) < 2 or torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
        for item in items:
            with one_thread():
                yield function(item)
        return
    waiting: deque[Future[Result]] = deque()
    before = sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(_TURN)
    try:
        with ThreadPoolExecutor(len(first), "slrctl", torch.set_num_threads, (1,)) as pool:
            for item in items:
                waiting.append(pool.submit(copy_context().run, function, item))
                if len(waiting) == 2 * len(first):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        sys.setswitchinterval(before)
        torch.set_num_threads(num_threads)  # what a thread sets is taken up by later ones


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with this thread alone, so that sums do not depend on how many it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_on(
    device: torch.device, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """The same for work on a device: an accelerator does one thing after the other."""
    return map_in_threads(function, items) if device.type == "cpu" else map(function, items)
