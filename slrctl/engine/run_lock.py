"""A run's folder belongs to one process at a time, and is free again when that process is gone."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from slrctl.errors import SlrctlError

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
