"""The folder of a run: its files, its lock, its start, and the environment it was made in.

The functions that read a file raise a `DataError` that names it if it is damaged.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from slrctl.core.data.dataset import SignDataset
from slrctl.core.devices import describe_device
from slrctl.errors import DataError, SlrctlError, UsageError, launched_count
from slrctl.files import parse_json, read_json, read_text, read_toml, write_json, write_text
from slrctl.settings import Settings

SETTINGS = "settings.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
BEST = "best.safetensors"
LAST = "last.safetensors"
PREVIOUS = "previous.safetensors"
PREDICTIONS = "predictions.parquet"
CURVES = "curves.png"
FILES = (SETTINGS, ENVIRONMENT, METRICS, SUMMARY, BEST, LAST, PREVIOUS, PREDICTIONS, CURVES)
LOCK = ".lock"

# Temporary files of `replacing`, left behind by a killed process.
_UNFINISHED = re.compile(
    rf"\.({'|'.join(Path(name).stem for name in FILES)})\.[0-9a-f]{{8}}\.[a-z]+"
)


_PROBE_SECONDS = 0.5
"""Longest wait for a lock that may be another process's `is_held`, which has it for a moment."""


class RunLock(NamedTuple):
    """The lock of a run's folder; the system releases it with the process, even after `kill -9`."""

    path: Path
    identity: os.stat_result

    def check(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            SlrctlError: it was removed, and perhaps made anew by another process.
        """
        try:
            is_same = os.path.samestat(self.path.lstat(), self.identity)
        except OSError:
            is_same = False
        if not is_same:
            raise SlrctlError(
                f"{self.path.parent}: the folder was removed or replaced while the run wrote to "
                "it, so nothing more can be saved there; train again"
            )


@contextmanager
def holding(run_dir: Path) -> Iterator[RunLock]:
    """Lock the folder of a run, which is made if it is absent.

    Raises:
        SlrctlError: another process writes to it, or it cannot be made or written to.
    """
    path = run_dir / LOCK
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=_PROBE_SECONDS)
        lock.acquire()
        identity = path.lstat()
    except Timeout:
        raise SlrctlError(
            f"{run_dir}: another process is writing to this run; wait until it ends, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise _cannot_write(run_dir, error) from None
    try:
        yield RunLock(path, identity)
    finally:
        with suppress(OSError):  # the disk may be read-only by now; the lock is released anyway
            if os.path.samestat(path.lstat(), identity):
                path.unlink()
        lock.release()


def is_held(run_dir: Path, *, timeout: float = _PROBE_SECONDS) -> bool:
    """Return True if a process has been writing to a run for the seconds of `timeout`."""
    path = run_dir / LOCK
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=timeout):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def free_run_dir(runs_dir: Path, name: str) -> Path:
    """Make the first of name, name-2, name-3, ... that does not exist yet.

    It is made at once, so that another run that begins now takes the next one.
    """
    candidate, number = runs_dir / name, 2
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            candidate, number = runs_dir / f"{name}-{number}", number + 1
        except OSError as error:
            raise _cannot_write(candidate, error) from None
        else:
            return candidate


def check_run_dir(run_dir: Path, *, force: bool) -> None:
    """Refuse to write over what is there, unless it is a run and `force` was given.

    Raises:
        UsageError: the folder is not empty.
    """
    if run_dir.is_file():
        raise UsageError(
            f"{run_dir}: is a file, and a run needs a folder; choose another --run-dir"
        )
    # A run that was killed at its very beginning leaves nothing that is worth keeping.
    if not run_dir.is_dir() or all(
        path.name in (LOCK, ENVIRONMENT) or _UNFINISHED.fullmatch(path.name)
        for path in run_dir.iterdir()
    ):
        return
    if not (run_dir / SETTINGS).is_file():
        raise UsageError(f"{run_dir}: holds other files and is not a run; choose another --run-dir")
    if not force:
        is_finished = (run_dir / SUMMARY).exists()
        resume = "" if is_finished else f"go on with it: {resume_command(run_dir)}; or "
        raise UsageError(
            f"{run_dir}: holds {'a' if is_finished else 'an unfinished'} run already; {resume}"
            "choose another --name, or overwrite it with --force"
        )


def start_run_dir(run_dir: Path, settings: Settings, environment: Mapping[str, Any]) -> None:
    """Remove the files of an earlier run, and write the settings and the environment of this one.

    The settings are removed last and written last: a folder that holds them holds a run.

    Raises:
        SlrctlError: the folder cannot be written to.
    """
    try:
        for name in (*FILES[1:], SETTINGS):
            (run_dir / name).unlink(missing_ok=True)
        remove_unfinished(run_dir)
        for summary in run_dir.glob("evaluation-*/metrics.json"):
            shutil.rmtree(summary.parent)  # the numbers of another model
        write_json(run_dir / ENVIRONMENT, environment)
        write_text(run_dir / SETTINGS, settings_toml(settings))
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def remove_unfinished(run_dir: Path) -> None:
    """Remove the temporary files of killed processes; nobody else may be writing."""
    for path in run_dir.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def resume_command(run: Path) -> str:
    """Return the command that resumes a run, or resumes from one of its states."""
    return f"slrctl train --resume {shlex.quote(str(run))}"


def _cannot_write(run_dir: Path, error: OSError) -> SlrctlError:
    return SlrctlError(f"{run_dir}: cannot be written ({error.strerror}); choose another --run-dir")


def settings_toml(settings: Settings) -> str:
    """Return the settings as TOML; those that are None are left out, for TOML has no null."""
    lines: list[str] = []

    def add(values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                lines.extend(["", f"[{key}]"])
                add(value)
            elif value is not None:
                # A number, a truth value, a string or a list of these is written as in JSON.
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
                lines.append(f"{key} = {text}")

    add(settings.model_dump(mode="json"))
    return "\n".join(lines) + "\n"


def read_settings(run_dir: Path) -> dict[str, Any]:
    """Read the layer of settings a run was trained with.

    Raises:
        SlrctlError: the folder is not a run.
    """
    if not (run_dir / SETTINGS).exists():
        raise SlrctlError(
            f"{run_dir}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        )
    return read_toml(run_dir / SETTINGS)


def read_environment(run_dir: Path) -> dict[str, Any]:
    """Read the environment a run was begun in: versions, machine, fingerprints of the data."""
    return _read_object(run_dir / ENVIRONMENT)


def read_fingerprints(run_dir: Path) -> dict[str, str]:
    """Read the fingerprint of each split that a run was made with."""
    environment = read_environment(run_dir)
    try:
        return {name: split["fingerprint"] for name, split in environment["data"].items()}
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{run_dir / ENVIRONMENT}: holds no fingerprints of the data") from None


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, one an epoch."""
    path = run_dir / METRICS
    try:
        lines = [parse_json(line) for line in read_text(path).splitlines()]
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, dict) or line.get("epoch") != number:
                raise ValueError(f"line {number} is not that of epoch {number}")
            if not all(isinstance(value, int | float | None) for value in line.values()):
                raise ValueError(f"line {number} holds a value that is no number")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({error}); put it back as it was, or train again with --force"
        ) from None
    return lines


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Read the results of a finished run."""
    return _read_object(run_dir / SUMMARY)


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: damaged (not an object)")
    return content


def newest_run(runs_dir: Path) -> Path:
    """Return the run whose best checkpoint was written last.

    Raises:
        SlrctlError: there is none.
    """
    checkpoints = list(runs_dir.glob(f"*/{BEST}"))
    if not checkpoints:
        raise SlrctlError(
            f"{runs_dir}: no finished run in it; train one with slrctl train, or name a run"
        )
    return max(checkpoints, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent


def folder_of(run: Path) -> Path:
    """Return the folder of a run that is named by itself or by a checkpoint in it."""
    return run.parent if run.is_file() or run.suffix == Path(BEST).suffix else run


_PACKAGES = ("slrctl", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors")
# Beside the versions, all that may change the last bits of a result.
_RELEVANT = ("git_revision", "processor", "threads", "device", "device_name", "processes")


def describe_environment(device: torch.device, splits: dict[str, SignDataset]) -> dict[str, Any]:
    """Describe the machine and the data of a run, fit for JSON."""
    return {
        **describe_machine(device),
        "data": {
            name: {"clips": len(split), "fingerprint": split.fingerprint()}
            for name, split in splits.items()
        },
        "classes": list(next(iter(splits.values())).classes),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return versions, revision, hardware and command of this process."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
        "git_revision": _git_revision(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": launched_count(),
        "device": str(device),
        "device_name": describe_device(device),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List, one a line, the differences that may change the last bits of a result."""
    pairs = {name: (before.get(name), now.get(name)) for name in _RELEVANT}
    versions = before.get("versions") or {}
    pairs |= {name: (versions.get(name), version) for name, version in now["versions"].items()}
    return [
        f"{name}: {was} before, {is_now} now"
        for name, (was, is_now) in pairs.items()
        if was != is_now
    ]


def _git_revision() -> str | None:
    """Return the revision of slrctl's own source, with + if it was changed; None without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    """Return the processor's name, as far as the system gives one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
