"""Run trials on a Ray cluster: the same code, in the same folders, on other machines too."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slrctl.errors import SlrctlError
from slrctl.studies.ablation.trials import (
    Trial,
    TrialDone,
    TrialEvent,
    TrialFailed,
    TrialStarted,
    code_digest,
)
from slrctl.studies.ablation.worker import run_trial

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, started and ended here."""
RETRIES = 5
"""How often a trial is started again whose worker or node was lost."""
# Trials hand over nothing but a line of text; the least that Ray takes.
_OBJECT_STORE = 80 * 1024 * 1024


def run_on_ray(
    trials: Sequence[Trial], trials_dir: Path, *, address: str, jobs: int | None, threads: int
) -> Generator[TrialEvent]:
    """Run trials on a cluster, and tell of each as it starts and ends.

    A trial whose worker or node is lost is started again on another one; a trial that fails by
    itself is told of and the others go on. Closing the generator leaves the cluster, which ends
    what still runs.

    Args:
        trials: what to run.
        trials_dir: where the runs go. All nodes need it, the clips and the cache under the same
            paths as here.
        address: of the cluster, as host:port; `LOCAL` starts one.
        jobs: at most so many trials at a time; None for as many as the nodes have room for.
        threads: of torch in a trial, and the processors it reserves.

    Raises:
        SlrctlError: Ray is not installed, there is no cluster at the address, or none of its nodes
            has so many processors.
    """
    if not trials:
        return
    trials_dir = trials_dir.absolute()
    trials_dir.mkdir(parents=True, exist_ok=True)
    ray = _connect(address, (jobs or 1) * threads)
    try:
        if not _room(ray, threads):
            raise SlrctlError(
                f"--threads {threads}: no node of the Ray cluster has so many processors; "
                "lower --threads"
            )
        train = ray.remote(num_cpus=threads, max_retries=RETRIES)(_train)
        waiting, running = list(reversed(trials)), dict[Any, Trial]()
        while waiting or running:
            # Asked again each time: nodes come and go.
            room = max(1, _room(ray, threads))
            while waiting and len(running) < min(room, jobs or room):
                trial = waiting.pop()
                yield TrialStarted(trial)
                # Trials do not share a graphics processor.
                num_gpus = 1 if trial.settings.train.device.startswith("cuda") else 0
                task = train.options(num_gpus=num_gpus).remote(
                    trial.settings.model_dump_json(), trials_dir / trial.key, threads, code_digest()
                )
                running[task] = trial
            for task in ray.wait(list(running), num_returns=1)[0]:
                yield _settle(ray, task, running.pop(task))
    finally:
        ray.shutdown()


def _connect(address: str, num_cpus: int) -> Any:
    # Ray reports its use to its makers unless told otherwise; nothing here leaves the machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise SlrctlError("--ray needs Ray: pip install 'slrctl[ray]', or use --jobs") from None
    is_ours = address == LOCAL
    if not is_ours:
        _knock(address)
    try:
        with _own_sigterm():
            ray.init(
                address,
                num_cpus=num_cpus if is_ours else None,
                object_store_memory=_OBJECT_STORE if is_ours else None,
                include_dashboard=False if is_ours else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise SlrctlError(f"--ray {address}: {_why_not(error)}") from None
    return ray


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray lets it end the process without a word, with code 15."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Find out at once whether anything listens there, which Ray takes five minutes for."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise SlrctlError(f"--ray {address}: {_why_not(error)}") from None


def _why_not(error: BaseException) -> str:
    told = f"{error} {error.__cause__}"
    if "InvalidAuthToken" in told or "authentication" in told.lower():
        return (
            "the cluster asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to that of "
            "the cluster unless Ray keeps it in your home already"
        )
    return (
        f"no Ray cluster can be reached there ({str(error).splitlines()[0][:200]}); start one with "
        "ray start --head, join this machine to it with ray start --address, or leave the address "
        "out"
    )


def _room(ray: Any, threads: int) -> int:
    """How many trials the nodes that are up can hold together."""
    return sum(
        int(node["Resources"].get("CPU", 0)) // threads for node in ray.nodes() if node["Alive"]
    )


def _train(settings_json: str, run_dir: Path, threads: int, code: str) -> str | None:
    """Run a trial on a node, unless the node cannot give the result that it would have here.

    Returns:
        None once the trial is finished, else what went wrong in one line.
    """
    if not run_dir.parent.is_dir():
        return (
            f"{run_dir.parent}: not there on node {socket.gethostname()}; all nodes need this "
            "folder, and the clips, under the same paths: share them"
        )
    if code_digest() != code:
        return (
            f"node {socket.gethostname()} has another version of slrctl; install the same on all "
            "nodes"
        )
    return run_trial(settings_json, run_dir, threads)


def _settle(ray: Any, task: Any, trial: Trial) -> TrialEvent:
    try:
        message = ray.get(task)
    except ray.exceptions.RayTaskError:
        raise  # a bug in the trial keeps its traceback
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        return TrialFailed(trial, f"its worker was lost {RETRIES + 1} times ({reason})")
    return TrialDone(trial) if message is None else TrialFailed(trial, message)
