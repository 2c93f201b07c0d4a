"""Run slrctl in processes of its own, which a test may kill.

A process that has imported everything forks for each command, so that a command takes as long as
its work and not the seconds in which torch is imported.
"""

import faulthandler
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


def wait_until(is_true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that must happen.

    Raises:
        TimeoutError: it did not.
    """
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError("it has not happened")
        time.sleep(0.01)


def num_epochs(run_dir: Path) -> int:
    """Count the epochs that a run has finished."""
    metrics = run_dir / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


class Ended(NamedTuple):
    """The end of a command; a code below 0 is the signal that killed it."""

    code: int
    stdout: str
    stderr: str


def _streams(rank: int) -> list[str]:
    """The files that a process writes its output and its errors to."""
    return [f"{name}{rank or ''}" for name in ("out", "err")]


class Commands:
    """Starts commands one after the other, in a folder; on request as several processes.

    Several of these may share a server, but for a command that is still running.
    """

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.folder = server, folder

    def start(self, *arguments: object, **limits: int) -> int:
        """Start `slrctl ARGUMENTS` and return its process.

        With `die_at` it kills itself just before it touches a file of a run for the n-th time;
        `largest_file` is what it may write into one file, in bytes.
        """
        (process,) = self._start(arguments, [{}], limits)
        return process

    def start_together(self, count: int, *arguments: object) -> list[int]:
        """Start `slrctl ARGUMENTS` in so many processes that find one another, as launchers do."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        shared |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        places = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
        return self._start(arguments, places, {})

    def wait(self) -> Ended:
        (ended,) = self.wait_together()
        return ended

    def wait_together(self) -> list[Ended]:
        """Wait for every process; return their ends in the order of their ranks."""
        ends: list[Ended] = []
        for rank, code in enumerate(json.loads(self._answer())):
            files = [self.folder / name for name in _streams(rank)]
            # One that was killed at once has written nothing.
            ends.append(Ended(code, *(f.read_text() if f.exists() else "" for f in files)))
        return ends

    def run(self, *arguments: object, **limits: int) -> Ended:
        self.start(*arguments, **limits)
        return self.wait()

    def run_together(self, count: int, *arguments: object) -> list[Ended]:
        self.start_together(count, *arguments)
        return self.wait_together()

    def _start(
        self, arguments: Sequence[object], places: list[dict[str, Any]], limits: dict[str, int]
    ) -> list[int]:
        order = {"arguments": [*map(str, arguments)], "places": places, "limits": limits}
        order["folder"] = str(self.folder)
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline()


@contextmanager
def command_server() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported everything, and starts what `Commands` asks for."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with server:
        try:
            yield server
        finally:
            server.kill()


def _serve() -> None:
    # Whoever started the tests may have told them to outlive a hang-up.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Everything that a command would import late.
    import matplotlib.backends.backend_agg  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch._dynamo

    import slrctl.cli.progress
    import slrctl.reports.figures  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        children = []
        for rank, place in enumerate(order["places"]):
            child = os.fork()
            if child == 0:
                os.environ.update({name: str(value) for name, value in place.items()})
                _be_the_command(order, rank)
            children.append(child)
        answers.write(f"{json.dumps(children)}\n")
        answers.flush()
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        answers.write(f"{json.dumps(ends)}\n")
        answers.flush()


def _be_the_command(order: dict, rank: int) -> None:
    from slrctl.cli import app

    os.chdir(order["folder"])
    for descriptor, name in enumerate(_streams(rank), start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    # One that hangs tells where, and fails its test.
    faulthandler.dump_traceback_later(300, exit=True)
    limits = order["limits"]
    if "die_at" in limits:
        _die_at(limits["die_at"])
    if "largest_file" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["largest_file"], resource.RLIM_INFINITY))
    code = 70  # a bug
    try:
        app(order["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_TOUCHES = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate")


def _die_at(count: int) -> None:
    touched = 0
    real_fsync = os.fsync

    def touch() -> None:
        nonlocal touched
        touched += 1
        if touched == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple) -> None:
        paths = [one for one in arguments if isinstance(one, str | bytes | os.PathLike)]
        if event in _TOUCHES and any("runs/" in os.fsdecode(path) for path in paths):
            touch()

    def fsync(descriptor: int) -> None:
        touch()
        real_fsync(descriptor)

    os.fsync = fsync  # the one step that is not audited
    sys.addaudithook(audit)


if __name__ == "__main__":
    _serve()
