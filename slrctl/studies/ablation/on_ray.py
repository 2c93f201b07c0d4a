"""A pool on a Ray cluster: the same trials, in the same folders, on other machines too."""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from slrctl.errors import SlrctlError
from slrctl.pool import Crashed
from slrctl.studies.ablation.trials import Trial, code_digest

LOCAL = "local"
"""Address of a cluster of this machine alone, started and ended by the pool."""
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # the least that Ray accepts; trials hardly need any
_Run = Callable[[Trial], str | None]


class RayPool:
    """Runs trials on the nodes of a cluster; its methods are those of `ProcessPool`.

    A trial reserves processors, and a graphics processor if its settings name one. The end of the
    block of `with` leaves the cluster, which ends what still runs.

    Args:
        run: what a node calls.
        trials_dir: a folder that all nodes must see under the same path.
        address: of the cluster, as host:port, or `LOCAL`.
        jobs: the most trials at a time; None for as many as the nodes have room for.
        threads: processors that each trial reserves.

    Raises:
        SlrctlError: Ray is not installed, there is no cluster at the address, or none of its nodes
            has so many processors.
    """

    def __init__(
        self, run: _Run, trials_dir: Path, *, address: str, jobs: int | None, threads: int
    ) -> None:
        self.jobs, self.threads = jobs, threads
        self._arguments = (run, trials_dir, code_digest())
        self._trials: dict[Any, Trial] = {}
        self._ray = _connect(address, (jobs or 1) * threads)
        self._call = self._ray.remote(num_cpus=threads, max_retries=0)(run_on_node)
        if not self._num_places():
            self._ray.shutdown()
            raise SlrctlError(
                f"--threads {threads}: no node of the Ray cluster has so many processors; "
                "lower --threads"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    @property
    def is_busy(self) -> bool:
        return bool(self._trials)

    @property
    def has_room(self) -> bool:
        places = max(1, self._num_places())
        return len(self._trials) < min(places, self.jobs or places)

    def _num_places(self) -> int:
        """Count the trials that fit on the nodes that are up; nodes come and go."""
        return sum(
            int(node["Resources"].get("CPU", 0)) // self.threads
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def submit(self, trial: Trial) -> None:
        num_gpus = 1 if trial.settings.train.device.startswith("cuda") else 0
        task = self._call.options(num_gpus=num_gpus).remote(trial, *self._arguments)
        self._trials[task] = trial

    def wait(self) -> list[tuple[Trial, str | Crashed | None]]:
        ready, _ = self._ray.wait(list(self._trials), num_returns=1)
        return [(self._trials.pop(task), self._result(task)) for task in ready]

    def _result(self, task: Any) -> str | Crashed | None:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError:
            raise  # a bug in the trial keeps its traceback
        except self._ray.exceptions.RayError as error:
            return Crashed(" ".join(str(error).split())[:200])


def run_on_node(trial: Trial, run: _Run, trials_dir: Path, code: str) -> str | None:
    """Run a trial, unless this node cannot give the same result as the others.

    Returns:
        None once the trial is finished, else the reason of its failure in one line.
    """
    node = socket.gethostname()
    if not trials_dir.is_dir():
        return (
            f"{trials_dir}: not there on node {node}; all nodes need this folder, and the clips, "
            "under the same paths: share them"
        )
    if code_digest() != code:
        return f"node {node} has another version of slrctl; install the same on all nodes"
    return run(trial)


def _connect(address: str, num_cpus: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports to its makers
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise SlrctlError("--ray needs Ray: pip install 'slrctl[ray]', or use --jobs") from None
    own = {}
    if address == LOCAL:
        own = {
            "num_cpus": num_cpus,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        _check_listening(address)
        with _own_sigterm():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise SlrctlError(f"--ray {address}: {_remedy(error)}") from None
    return ray


def _check_listening(address: str) -> None:
    """Fail at once where nothing listens; Ray would try for five minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our handler of SIGTERM, which Ray replaces by one that exits without a message."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _remedy(error: BaseException) -> str:
    text = f"{error} {error.__cause__}"
    if "InvalidAuthToken" in text or "authentication" in text.lower():
        return (
            "the cluster asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to that of "
            "the cluster unless Ray keeps it in your home already"
        )
    return (
        f"no Ray cluster can be reached there ({str(error).splitlines()[0][:200]}); start one with "
        "ray start --head, join this machine to it with ray start --address, or leave the address "
        "out"
    )
