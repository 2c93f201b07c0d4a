"""The processes that train one model together, and requests to stop them.

A launcher (`torchrun`, `accelerate launch`, SLURM) starts them and tells each its rank in variables
of the environment. Hugging Face Accelerate decides the backend (NCCL between GPUs, gloo between
CPUs) and the device of each. A process that no launcher started is a group of one and needs no
Accelerate.
"""

import ctypes
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor

from slrctl.core.devices import choose_device
from slrctl.errors import (
    ProcessLost,
    ReportedElsewhere,
    SlrctlError,
    UsageError,
    launched_count,
    launched_rank,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

# The first process may read and clean a large data set before the others can go on.
PATIENCE = timedelta(minutes=30)
# The words of gloo for a peer that is gone, in errors that have no type of their own.
_LOST = re.compile(r"connection (closed|reset) by peer|broken pipe|timed ?out", re.IGNORECASE)


class ProcessGroup:
    """The processes of a run, as seen by one of them; all must make the calls that exchange.

    `rank` is the place of this process among `size`. Rank 0 speaks and writes for all.
    """

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.size: int = accelerator.num_processes if accelerator else 1

    def device(self, name: str) -> torch.device:
        """Return the device of this process; the named one if it is alone."""
        if self.accelerator is None:
            return choose_device(name)
        device = self.accelerator.device
        return torch.device("cpu") if device.type == "cpu" else device

    def sum(self, values: Tensor) -> Tensor:
        """Add up the tensors of all ranks."""
        if self.accelerator is None:
            return values
        with lost_process_named():
            summed = self.accelerator.reduce(values.to(self.accelerator.device), "sum")
        return cast(Tensor, summed).to(values.device)

    def any(self, flag: bool) -> bool:
        """Return True in all ranks if the flag is True in one."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def gather(self, items: list[T]) -> list[T]:
        """Return the items of all ranks, rank by rank: numbers, strings, tensors on the CPU.

        Nothing in them can run code: they are read with `weights_only`.
        """
        if self.accelerator is None:
            return items
        written = io.BytesIO()
        torch.save(items, written)
        own = torch.frombuffer(written.getbuffer(), dtype=torch.uint8)
        device = self.accelerator.device
        with lost_process_named():
            sizes = self.accelerator.gather(torch.tensor([len(own)], device=device))
            padded = self.accelerator.pad_across_processes(own.to(device))
            rows = self.accelerator.gather(padded[None])
        gathered = []
        for row, size in zip(cast(Tensor, rows).cpu(), cast(Tensor, sizes).tolist(), strict=True):
            content = io.BytesIO(row[:size].numpy().tobytes())
            gathered += torch.load(content, weights_only=True)
        return gathered

    def gather_in_turn(self, results: Sequence[T]) -> list[T]:
        """Return the results of all ranks in the order in which the work was dealt out."""
        turns = itertools.zip_longest(*self.gather([list(results)]))
        return [result for turn in turns for result in turn if result is not None]

    def together(self, act: Callable[[], T]) -> T:
        """Act in every process; where it fails in one, fail in all, with one message.

        Raises:
            SlrctlError: it failed here.
            ReportedElsewhere: it failed in another process, or in an earlier one too.
        """
        failure, results = None, []
        try:
            results.append(act())
        except SlrctlError as error:
            failure = error
        codes = self.gather([failure.exit_code if failure else 0])
        failed = [rank for rank, code in enumerate(codes) if code]
        if failure is not None and failed[0] == self.rank:
            raise failure
        if failed:
            raise ReportedElsewhere(codes[failed[0]])
        return results[0]

    def on_first(self, act: Callable[[], T]) -> T | None:
        """Act in rank 0, and wait for it in the others; fail together."""
        return self.together(act if self.rank == 0 else lambda: None)


SINGLE = ProcessGroup()
"""The group of a process that no launcher started."""


@contextmanager
def lost_process_named() -> Iterator[None]:
    """Turn an error that says that another process is gone into a `ProcessLost`."""
    try:
        yield
    except RuntimeError as error:
        found = _LOST.search(str(error))
        if not found and not isinstance(error, torch.distributed.DistError):
            raise
        reason = found[0].lower() if found else str(error).splitlines()[0][:200]
        raise ProcessLost(
            f"process {launched_rank() + 1} of {launched_count()}: another process of this run "
            f"ended or cannot be reached ({reason})"
        ) from None


@contextmanager
def joined_group(device: str) -> Iterator[ProcessGroup]:
    """Join the other processes of the run, if a launcher started any, and leave them at the end.

    Raises:
        UsageError: the extra that it takes is not installed, or the device cannot be used.
        ProcessLost: the others cannot be reached.
    """
    if launched_count() == 1:
        yield ProcessGroup()
        return
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        if error.name != "accelerate":
            raise
        raise UsageError(
            f"WORLD_SIZE is {launched_count()}, and several processes need the package "
            "accelerate; pip install 'slrctl[distributed]'"
        ) from None
    chosen = choose_device(device)
    is_cpu = chosen.type == "cpu"
    kwargs = InitProcessGroupKwargs(backend="gloo" if is_cpu else None, timeout=PATIENCE)
    with lost_process_named(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names the number of threads that it chose
        accelerator = Accelerator(cpu=is_cpu, kwargs_handlers=[kwargs])
    try:
        if accelerator.num_processes != launched_count():
            raise UsageError(
                f"{launched_count()} processes cannot train together on {chosen}; pass --device "
                "cpu, or start one process"
            )
        yield ProcessGroup(accelerator)
    finally:
        if torch.distributed.is_initialized():
            _leave()


def _leave() -> None:
    """Leave the group, but let its threads live on to the end of this process.

    A thread of gloo that lets go of the last exchanged tensor needs Python's lock, and the group's
    destructor waits for that thread while it holds the lock: a deadlock. So the group gets a
    reference that is never released.
    """
    group = torch.distributed.group.WORLD
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    torch.distributed.destroy_process_group()


class StopAsked(Exception):  # noqa: N818 - the name says what happened
    """Raised between two batches, where model, optimizer and progress belong together."""


class StopRequest:
    """A request (Ctrl-C, SIGTERM) to stop a run, honoured between two steps.

    `ask` may be called at any moment, also by a signal handler.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_awaited = False

    def ask(self) -> None:
        """Ask to stop; where nothing needs to be saved, a KeyboardInterrupt stops at once."""
        self.is_asked = True
        if not self.is_awaited:
            raise KeyboardInterrupt

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Only note requests inside the block, for what is under way must be saved."""
        self.is_awaited = True
        try:
            yield
        finally:
            self.is_awaited = False

    def check(self, group: ProcessGroup) -> None:
        """Raise `StopAsked` if any process of the group was asked."""
        if group.any(self.is_asked):
            raise StopAsked

    def between(self, batches: Iterator[T], group: ProcessGroup) -> Iterator[T]:
        """Yield the batches, as many in each process; a request is honoured before each."""
        for batch in batches:
            self.check(group)
            yield batch

    def until_asked(self, batches: Iterator[T], group: ProcessGroup) -> Iterator[T]:
        """Yield the batches, of which each process may have another number.

        A process that was asked takes no more of them; the request is honoured where all have come
        to their end.
        """
        yield from itertools.takewhile(lambda _: not self.is_asked, batches)
        self.check(group)
