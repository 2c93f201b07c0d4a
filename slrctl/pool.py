"""Work on many things in other processes, which may die of one of them."""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crashed(NamedTuple):
    """A process died of what it worked on: its exit code, below 0 the signal that ended it."""

    exit_code: int | None


class _Bug(NamedTuple):
    traceback: str


class _Worker(NamedTuple):
    process: SpawnProcess
    connection: Connection


def in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int
) -> Iterator[tuple[Item, Result | Crashed]]:
    """Yield every item with its result as they come, in any order.

    A process that dies loses only the item it had; another one takes its place. What the processes
    write to the terminal is dropped. They end with this process, however it ends.

    Args:
        function: of a module, so that another process finds it.
        items: what to work on.
        num_processes: how many at a time.

    Raises:
        RuntimeError: the function raised, which is a bug: it is to return what goes wrong.
    """
    waiting = deque(items)
    idle: list[_Worker] = []
    busy: list[tuple[_Worker, Item]] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < num_processes:
                worker = idle.pop() if idle else _start(function)
                item = waiting.popleft()
                worker.connection.send(item)
                busy.append((worker, item))
            ready = wait([worker.connection for worker, _ in busy])
            for worker, item in [pair for pair in busy if pair[0].connection in ready]:
                busy.remove((worker, item))
                try:
                    result = worker.connection.recv()
                except (EOFError, ConnectionError):
                    worker.process.join()
                    yield item, Crashed(worker.process.exitcode)
                    continue
                if isinstance(result, _Bug):
                    raise RuntimeError(f"in a worker process, at {item}:\n{result.traceback}")
                idle.append(worker)
                yield item, result
    finally:
        for worker in (*idle, *(worker for worker, _ in busy)):
            worker.process.terminate()
            worker.process.join()


def _start(function: Callable[[Item], Result]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


def _serve(connection: Connection, function: Callable[[Item], Result]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)
    while True:
        try:
            item = connection.recv()
        except EOFError:  # the parent is gone
            return
        try:
            result = function(item)
        except Exception:
            result = _Bug(traceback.format_exc())
        connection.send(result)
