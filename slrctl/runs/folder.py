"""The folder of a run: what is in it, how it is made, found and read back."""

import json
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.files import parse_json, parse_toml, read_text, replacing
from slrctl.runs.checkpoint import refuse_pickle
from slrctl.settings import Settings

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


class RunLock(NamedTuple):
    """A folder that is held; the lock ends with the process, even one that is killed."""

    path: Path
    descriptor: int

    def check(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            SlrctlError: it was removed, and perhaps made anew by somebody else.
        """
        if not _is_at(self.path, self.descriptor):
            raise SlrctlError(
                f"{self.path.parent}: the folder was removed or replaced while the run wrote to "
                "it, so nothing more can be saved there; train again"
            )


@contextmanager
def holding(run_dir: Path) -> Iterator[RunLock]:
    """Hold a folder, which must exist.

    Raises:
        SlrctlError: another process holds it, or it cannot be written to.
    """
    path = run_dir / LOCK
    try:
        descriptor = _locked(path)
    except BlockingIOError:
        raise SlrctlError(
            f"{run_dir}: another process is writing to this run ({_holder(path)}); wait until it "
            "ends, or choose another folder"
        ) from None
    except OSError as error:
        raise SlrctlError(
            f"{run_dir}: cannot be written or locked ({error.strerror}); choose another --run-dir"
        ) from None
    lock = RunLock(path, descriptor)
    try:
        yield lock
    finally:
        if _is_at(path, descriptor):
            with suppress(OSError):  # the disk is read-only now; the lock ends all the same
                path.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(run_dir: Path) -> bool:
    """Whether a process is writing to a run."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(descriptor)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked(path: Path) -> int:
    while True:
        descriptor = open_lock(path)
        try:
            _lock(descriptor)
            if _is_at(path, descriptor):  # else the one before has just removed it
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open the file of a lock, or make it; never what a link leads to, which may be anybody's.

    Raises:
        OSError: it is a link, or cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":  # there is no such lock there
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:200] or "not named"
    except (OSError, UnicodeDecodeError):
        return "not named"


SETTINGS = "settings.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
BEST = "best.safetensors"
LAST = "last.safetensors"
PREVIOUS = "previous.safetensors"
PREDICTIONS = "predictions.parquet"
CURVES = "curves.png"
EVALUATION = "evaluation-"
FILES = (SETTINGS, ENVIRONMENT, METRICS, SUMMARY, BEST, LAST, PREVIOUS, PREDICTIONS, CURVES)
# What `replacing` leaves behind where the process was killed.
_NUMBER = (int, float, bool, type(None))
_UNFINISHED = re.compile(
    rf"\.({'|'.join(Path(name).stem for name in FILES)})\.[0-9a-f]{{8}}\.[a-z]+"
)


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


def resume_command(run: Path) -> str:
    """What a user types to go on with a run, or from one of its states."""
    return f"slrctl train --resume {shlex.quote(str(run))}"


def check_run_dir(run_dir: Path, *, force: bool) -> None:
    """Refuse to write over what is there, unless it is a run and `force` was given.

    Raises:
        UsageError: the folder is not empty.
    """
    if run_dir.is_file():
        raise UsageError(
            f"{run_dir}: is a file, and a run needs a folder; choose another --run-dir"
        )
    if not run_dir.is_dir() or not any(_is_kept(path.name) for path in run_dir.iterdir()):
        return
    if not (run_dir / SETTINGS).is_file():
        raise UsageError(f"{run_dir}: holds other files and is not a run; choose another --run-dir")
    if not force:
        is_finished = (run_dir / SUMMARY).exists()
        go_on = "" if is_finished else f"go on with it: {resume_command(run_dir)}; or "
        raise UsageError(
            f"{run_dir}: holds {'a' if is_finished else 'an unfinished'} run already; {go_on}"
            "choose another --name, or overwrite it with --force"
        )


def make_run_dir(run_dir: Path) -> None:
    """Make the folder of a run, unless it is there.

    Raises:
        SlrctlError: it cannot be made.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def start_run_dir(run_dir: Path, settings: Settings, environment: Mapping[str, Any]) -> None:
    """Remove what an earlier run left in the folder, and write down what is to be run.

    The settings are removed last and written last: a folder that holds them holds a run.
    """
    make_run_dir(run_dir)
    try:
        for name in (*FILES[1:], SETTINGS):
            (run_dir / name).unlink(missing_ok=True)
        remove_unfinished(run_dir)
        for summary in run_dir.glob(f"{EVALUATION}*/metrics.json"):
            shutil.rmtree(summary.parent)  # the numbers of another model
        write_json(run_dir / ENVIRONMENT, environment)
        write_text(run_dir / SETTINGS, settings_toml(settings))
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def remove_unfinished(run_dir: Path) -> None:
    """Remove what writers left behind that were killed; nobody may be writing now."""
    for path in run_dir.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _is_kept(name: str) -> bool:
    """Whether a file is more than what a run that was killed at its very beginning leaves."""
    return name not in (LOCK, ENVIRONMENT) and _UNFINISHED.fullmatch(name) is None


def _cannot_write(run_dir: Path, error: OSError) -> SlrctlError:
    return SlrctlError(f"{run_dir}: cannot be written ({error.strerror}); choose another --run-dir")


def remove_states(run_dir: Path) -> None:
    """Remove what only going on would need; the best model stays."""
    for name in (LAST, PREVIOUS):
        (run_dir / name).unlink(missing_ok=True)


def settings_toml(settings: Settings) -> str:
    """The whole tree as TOML; a value that is None is left out, for TOML has no such thing."""

    def without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: without_none(value) if isinstance(value, Mapping) else value
            for key, value in tree.items()
            if value is not None
        }

    return tomlkit.dumps(without_none(settings.model_dump(mode="json")))


def read_settings(run_dir: Path) -> dict[str, Any]:
    """The layer of settings a run was trained with."""
    path = run_dir / SETTINGS
    try:
        return parse_toml(read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        raise SlrctlError(
            f"{run_dir}: not a run (no {SETTINGS}); name a folder that slrctl train wrote"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{path}: not a TOML file any more ({error})") from None


def read_environment(run_dir: Path) -> dict[str, Any]:
    """What a run was begun with: versions, machine, fingerprints of the data."""
    path = run_dir / ENVIRONMENT
    try:
        environment = parse_json(read_text(path))
    except (OSError, ValueError):
        environment = None
    if not isinstance(environment, dict):
        raise DataError(f"{path}: cannot be read as what slrctl train wrote")
    return environment


def read_fingerprints(run_dir: Path) -> dict[str, str]:
    """The fingerprint of each part of the data a run was made with."""
    try:
        parts = read_environment(run_dir)["data"]
        return {name: part["fingerprint"] for name, part in parts.items()}
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{run_dir / ENVIRONMENT}: cannot be read as what slrctl train wrote"
        ) from None


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one an epoch.

    Raises:
        DataError: they are damaged.
    """
    path = run_dir / METRICS
    try:
        lines = [parse_json(line) for line in read_text(path).splitlines()]
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, dict) or line.get("epoch") != number:
                raise ValueError(f"line {number} does not tell of epoch {number}")
            bad = [name for name, value in line.items() if not isinstance(value, _NUMBER)]
            if bad:
                raise ValueError(f"line {number}: {bad[0]} is no number")
        return lines
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({_why(error)}); put it back as it was, or train again with --force"
        ) from None


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What a finished run came to.

    Raises:
        DataError: its summary is damaged.
    """
    path = run_dir / SUMMARY
    try:
        summary = parse_json(read_text(path))
        if not isinstance(summary, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({_why(error)}); what the run came to says slrctl evaluate {run_dir}"
        ) from None
    return summary


def _why(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def newest_run(runs_dir: Path) -> Path:
    """The run whose best checkpoint was written last."""
    checkpoints = list(runs_dir.glob(f"*/{BEST}"))
    if not checkpoints:
        raise SlrctlError(
            f"{runs_dir}: no finished run in it; train one with slrctl train, or name a run"
        )
    return max(checkpoints, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent


def folder_of(run: Path) -> Path:
    """The folder of a run that is named by itself or by a checkpoint in it.

    Raises:
        DataError: it is a pickled file.
    """
    refuse_pickle(run)
    is_checkpoint = run.suffix == Path(BEST).suffix and not run.is_dir()
    return run.parent if is_checkpoint else run


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that a person can read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON object to a file of lines; it is on the disk when this returns."""

    def never_through_a_link(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with open(path, "a", encoding="utf-8", opener=never_through_a_link) as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
