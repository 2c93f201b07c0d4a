"""Several processes through Hugging Face Accelerate, which sets them up and connects them.

Accelerate decides the backend (NCCL between GPUs, gloo between CPUs), the device of each process,
and wraps the module for data parallel training. Nothing that is exchanged is pickled.
"""

import ctypes
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from slrctl.core.devices import choose_device
from slrctl.errors import ReportedElsewhere, SlrctlError, UsageError, WorkerLost
from slrctl.launch import launched_count, launched_rank

T = TypeVar("T")

# The first process may read and clean a large data set before the others can go on.
PATIENCE = timedelta(minutes=30)
# How gloo tells that a peer is gone, in errors that have no type of their own.
_LOST = re.compile(r"connection (closed|reset) by peer|broken pipe|timed ?out", re.IGNORECASE)


class AcceleratedWorkers:
    """One process of several; see `Workers` for what each call promises."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    def device(self, name: str) -> torch.device:
        device = self.accelerator.device
        return torch.device("cpu") if device.type == "cpu" else device

    def wrap(self, module: nn.Module) -> nn.Module:
        return self.accelerator.prepare_model(module)

    def apart(self, module: nn.Module) -> AbstractContextManager[object]:
        return self.accelerator.no_sync(module)

    def wait(self) -> None:
        with lost_worker_named():
            self.accelerator.wait_for_everyone()

    def watched(self) -> AbstractContextManager[object]:
        return lost_worker_named()

    def summed(self, numbers: Sequence[float]) -> list[float]:
        return self._reduced(torch.tensor(numbers, dtype=torch.float64), "sum").tolist()

    def mean(self, tensor: Tensor) -> Tensor:
        return self._reduced(tensor, "mean")

    def gather(self, rows: Tensor) -> Tensor:
        if rows.is_floating_point():
            return _gathered_with_gradient(rows, self)
        whole, _ = self._gathered(rows.long())
        return whole.to(rows.dtype)

    def exchange(self, parts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        own = {
            f"{number}.{name}": tensor.contiguous()
            for number, part in enumerate(parts)
            for name, tensor in part.items()
        }
        return _dealt_in_turn(self._exchanged(safetensors.torch.save(own)))

    def names(self, own: Sequence[str]) -> list[str]:
        contents = self._exchanged(json.dumps(list(own)).encode())
        return [name for content in contents for name in json.loads(content)]

    def together(self, act: Callable[[], T]) -> T:
        failure: SlrctlError | None = None
        result: Any = None
        try:
            result = act()
        except SlrctlError as error:
            failure = error
        code = b"" if failure is None else json.dumps(failure.exit_code).encode()
        codes = self._exchanged(code)
        failed = [rank for rank, its in enumerate(codes) if its]
        if failure is not None and failed[0] == self.rank:
            raise failure
        if failed:
            raise ReportedElsewhere(json.loads(codes[failed[0]]))
        return result

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        with lost_worker_named():
            return _tensor(self.accelerator.reduce(tensor.to(self.accelerator.device), how))

    def _gathered(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """The rows of all, and how many each has."""
        device = self.accelerator.device
        with lost_worker_named():
            own = torch.tensor([len(rows)], device=device)
            lengths: list[int] = _tensor(self.accelerator.gather(own)).tolist()
            padded = rows.new_zeros(max(1, *lengths), *rows.shape[1:], device=device)
            padded[: len(rows)] = rows
            every = _tensor(self.accelerator.gather(padded))
        by_rank = every.unflatten(0, (self.count, -1))
        return torch.cat([rows[:n] for rows, n in zip(by_rank, lengths, strict=True)]), lengths

    def _exchanged(self, content: bytes) -> list[bytes]:
        own = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else _NOTHING
        whole, lengths = self._gathered(own)
        return [part.cpu().numpy().tobytes() for part in whole.split(lengths)]


_NOTHING = torch.empty(0, dtype=torch.uint8)


class _Gathered(torch.autograd.Function):
    """Rows of all workers.

    Each computes the same from them, so each holds the gradient of its own rows already. A step's
    gradient is the mean over the workers, of which the other summands are 0: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, workers: AcceleratedWorkers) -> Tensor:
        whole, lengths = workers._gathered(rows.detach())
        first = sum(lengths[: workers.rank])
        ctx.own, ctx.count = slice(first, first + len(rows)), workers.count
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient[ctx.own] * ctx.count, None


def _gathered_with_gradient(rows: Tensor, workers: AcceleratedWorkers) -> Tensor:
    return _tensor(_Gathered.apply(rows, workers))


def _tensor(found: object) -> Tensor:
    """What Accelerate makes of a tensor, for which it has a wider type."""
    if not isinstance(found, Tensor):
        raise TypeError(f"{type(found)} in the place of a tensor")
    return found


def _dealt_in_turn(contents: Sequence[bytes]) -> list[dict[str, Tensor]]:
    """Part 0 of every process, then part 1 of those that have one, and so on."""
    by_number: dict[tuple[int, int], dict[str, Tensor]] = {}
    for rank, content in enumerate(contents):
        for key, tensor in safetensors.torch.load(content).items():
            number, _, name = key.partition(".")
            by_number.setdefault((int(number), rank), {})[name] = tensor
    return [by_number[place] for place in sorted(by_number)]


@contextmanager
def lost_worker_named() -> Iterator[None]:
    """Say in one line that another process is gone.

    Raises:
        WorkerLost: what was raised inside tells so.
    """
    try:
        yield
    except RuntimeError as error:
        found = _LOST.search(str(error))
        if not found and not isinstance(error, torch.distributed.DistError):
            raise
        reason = found[0].lower() if found else str(error).splitlines()[0][:200]
        raise WorkerLost(
            f"process {launched_rank() + 1} of {launched_count()}: another process of this run "
            f"ended or cannot be reached ({reason})"
        ) from None


@contextmanager
def joined(device: str) -> Iterator[AcceleratedWorkers]:
    """Meet the other processes, and part from them at the end of the block."""
    chosen = choose_device(device)
    is_cpu = chosen.type == "cpu"
    group = InitProcessGroupKwargs(backend="gloo" if is_cpu else None, timeout=PATIENCE)
    with lost_worker_named(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names the number of threads that it chose
        accelerator = Accelerator(cpu=is_cpu, kwargs_handlers=[group])
    try:
        if accelerator.num_processes != launched_count():
            raise UsageError(
                f"{launched_count()} processes cannot train together on {chosen}; pass --device "
                "cpu, or start one process"
            )
        yield AcceleratedWorkers(accelerator)
    finally:
        if torch.distributed.is_initialized():
            _part()


def _part() -> None:
    """Leave the group, but let its threads live on to the end of this process.

    A thread of gloo that lets go of the last exchanged tensor needs Python's lock, and the group's
    destructor waits for that thread while it holds the lock: they would wait for each other for
    ever. So the group gets a reference that nobody gives back.
    """
    group = torch.distributed.group.WORLD
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    torch.distributed.destroy_process_group()
