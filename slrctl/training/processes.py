"""The processes that train one model together: here the one that is alone, and how they join.

A run asks its workers for what needs them all, and does not ask how many there are. Several come
from a launcher (`torchrun`, `accelerate launch`, SLURM), which tells each its place in variables
of the environment.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

from slrctl.errors import UsageError
from slrctl.launch import launched_count

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


T = TypeVar("T")


class Workers(Protocol):
    """One process's view of all; every call that asks for others must be made by all of them."""

    @property
    def rank(self) -> int:
        """The place of this process; the first one, 0, speaks and writes for all."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def device(self, name: str) -> "torch.device":
        """Where this process computes."""
        ...

    def wrap(self, module: "nn.Module") -> "nn.Module":
        """The module, whose gradients are the means over all processes after a backward."""
        ...

    def apart(self, module: "nn.Module") -> AbstractContextManager[object]:
        """A block in which a backward keeps its gradients here, to be added to later ones."""
        ...

    def wait(self) -> None:
        """Until all processes have come here."""
        ...

    def watched(self) -> AbstractContextManager[object]:
        """A block in which an error that another process's end causes is a `WorkerLost`."""
        ...

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """Each number, added up over all processes in double precision."""
        ...

    def mean(self, tensor: "Tensor") -> "Tensor":
        """The mean over all processes; shapes are equal."""
        ...

    def gather(self, rows: "Tensor") -> "Tensor":
        """The rows of all processes; the gradient of each finds its way back to where it is from.

        All must compute the same from what they get.
        """
        ...

    def exchange(self, parts: "list[dict[str, Tensor]]") -> "list[dict[str, Tensor]]":
        """The parts of all processes, one of each in turn, as dealt out; on the CPU."""
        ...

    def names(self, own: Sequence[str]) -> list[str]:
        """The names that all processes have."""
        ...

    def together(self, act: Callable[[], T]) -> T:
        """Act in every process; where it fails in one, fail in all, with one message.

        Raises:
            SlrctlError: it failed here.
            ReportedElsewhere: it failed in another process, or in an earlier one too.
        """
        ...


class Alone:
    """The only process."""

    rank, count = 0, 1

    def device(self, name: str) -> "torch.device":
        from slrctl.core.devices import choose_device

        return choose_device(name)

    def wrap(self, module: "nn.Module") -> "nn.Module":
        return module

    def apart(self, module: "nn.Module") -> AbstractContextManager[object]:
        return nullcontext()

    def wait(self) -> None:
        """There is nobody to wait for."""

    def watched(self) -> AbstractContextManager[object]:
        return nullcontext()

    def summed(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)

    def mean(self, tensor: "Tensor") -> "Tensor":
        return tensor

    def gather(self, rows: "Tensor") -> "Tensor":
        return rows

    def exchange(self, parts: "list[dict[str, Tensor]]") -> "list[dict[str, Tensor]]":
        return parts

    def names(self, own: Sequence[str]) -> list[str]:
        return list(own)

    def together(self, act: Callable[[], T]) -> T:
        return act()


ALONE = Alone()


def first_only(workers: Workers, act: Callable[[], T]) -> T | None:
    """Act in the first process, and wait for it in the others; fail together."""
    return workers.together(act if workers.rank == 0 else lambda: None)


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """Meet the other processes of the run, if a launcher started any, and part from them.

    Raises:
        UsageError: the extra that it takes is not installed, or the device cannot be used.
        WorkerLost: the others cannot be reached.
    """
    if launched_count() == 1:
        yield ALONE
        return
    try:
        from slrctl.training.accelerated import joined
    except ImportError as error:
        if error.name != "accelerate":
            raise
        raise UsageError(
            f"WORLD_SIZE is {launched_count()}, and several processes need the package "
            "accelerate; pip install 'slrctl[distributed]'"
        ) from None
    with joined(device) as workers:
        yield workers
