"""A pool of processes that outlives each of them."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, NamedTuple, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crashed(NamedTuple):
    """In the place of a result: the process died while it had the item."""

    reason: str


class _Bug(NamedTuple):
    traceback: str


class ProcessPool(Generic[Item, Result]):
    """Calls a function in other processes, in each for one item at a time.

    A process that dies loses only its item; the next item gets a new process. Output to the
    terminal is dropped. Ctrl-C and hang-ups reach this process alone. The others end when the block
    of `with` ends, and with this process, even if it is killed.

    Args:
        function: of a module, since other processes import it; it returns expected failures, and an
            exception is a bug.
        num_processes: the most that run at a time.
    """

    def __init__(self, function: Callable[[Item], Result], num_processes: int) -> None:
        self.function, self.num_processes = function, num_processes
        self._processes: dict[Connection, SpawnProcess] = {}
        self._items: dict[Connection, Item] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join()

    @property
    def is_busy(self) -> bool:
        return bool(self._items)

    @property
    def has_room(self) -> bool:
        return len(self._items) < self.num_processes

    def submit(self, item: Item) -> None:
        """Give an item to an idle process, or to a new one."""
        idle = self._processes.keys() - self._items.keys()
        connection = idle.pop() if idle else self._start()
        self._items[connection] = item
        with suppress(ConnectionError):  # it died while idle; `wait` finds out
            connection.send(item)

    def wait(self) -> list[tuple[Item, Result | Crashed]]:
        """Wait for at least one of the submitted items; return those that are finished.

        Raises:
            RuntimeError: the function raised.
        """
        finished, ready = [], wait(list(self._items))
        for connection in [one for one in self._items if one in ready]:
            item = self._items.pop(connection)
            try:
                result = connection.recv()
            except (EOFError, ConnectionError):
                process = self._processes.pop(connection)
                process.join()
                result = Crashed(f"exit code {process.exitcode}")
            if isinstance(result, _Bug):
                raise RuntimeError(f"in another process, at {item}:\n{result.traceback}")
            finished.append((item, result))
        return finished

    def map(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result | Crashed]]:
        """Yield every item with its result, in the order in which they finish."""
        waiting = deque(items)
        while waiting or self.is_busy:
            while waiting and self.has_room:
                self.submit(waiting.popleft())
            yield from self.wait()

    def _start(self) -> Connection:
        # A forked child of a process that has used torch's threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.function), daemon=True)
        with _signals_blocked():
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self._processes[ours] = process
        return ours


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and hang-ups here for a moment, and for ever in processes started inside."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # would unblock Ctrl-C if it were started inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, function: Callable[[Item], Result]) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)
    while True:
        item = connection.recv()
        try:
            result = function(item)
        except Exception:
            result = _Bug(traceback.format_exc())
        connection.send(result)


def _leave_with_parent() -> None:
    # Not by `os.getppid`: a parent that died during the imports is another process by now.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
