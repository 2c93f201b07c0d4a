"""Work side by side in threads that never wait for one another within an operation.

Torch's own threads share each operation, meet at the end of it, and lose most of their time there
where operations are short, or where another process wants the processors. Here every thread has
a piece of work of its own: the operations of several pieces run at once, and their threads meet
once, at the end.
"""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import torch

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
