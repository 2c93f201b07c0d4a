"""The errors a user can act on, each with the code the command exits with, and who reports them.

A message is one line: the value found, the rule it breaks, and what to do next. Anything that is
not one of these is a bug and keeps its traceback. Of several processes that a launcher (`torchrun`,
`accelerate launch`, SLURM) started, rank 0 speaks for all.
"""

import difflib
import os
from bisect import bisect
from collections.abc import Collection, Iterator
from contextlib import contextmanager

_LONGEST_QUOTE = 60
_MOST_COMPARED = 2000


class SlrctlError(Exception):
    """An expected failure: a missing run, a folder in the way."""

    exit_code = 1


class UsageError(SlrctlError):
    """A wrong option or setting."""

    exit_code = 2


class DataError(SlrctlError):
    """Bad data: the message names the file and, where there are any, the row and the column."""

    exit_code = 3


class TrainingDiverged(SlrctlError):  # noqa: N818 - the name says what happened
    """The loss became NaN or infinite; the last good checkpoint stays."""

    exit_code = 4


class ReportedElsewhere(SlrctlError):  # noqa: N818 - the name says what happened
    """An error that another process of the same run has reported already."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"another process of the run ended with code {exit_code}")
        self.exit_code = exit_code


class ProcessLost(SlrctlError):  # noqa: N818 - the name says what happened
    """Another process of the same run ended, or cannot be reached any more."""


class Interrupted(SlrctlError):  # noqa: N818 - the name says what happened
    """The user asked to stop; the message says what was saved and how to resume."""

    exit_code = 130


def quote(value: object) -> str:
    """Show a value found in a file on one line, shortened to fit a message."""
    text = repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    if len(text) <= _LONGEST_QUOTE:
        return text
    return f"{text[: _LONGEST_QUOTE - 4]}...{text[-1]}"


def some_of(names: list[str], limit: int = 5) -> str:
    """Quote the first few names and count the rest."""
    shown = ", ".join(quote(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def nearest_of(name: str, known: Collection[str]) -> str:
    """Suggest the existing names that look most like one that does not exist."""
    # Comparing with every id of a large set would take long: those that sort beside it come first.
    ordered = sorted(known)
    place = max(0, bisect(ordered, name) - _MOST_COMPARED // 2)
    near = difflib.get_close_matches(name, ordered[place : place + _MOST_COMPARED], 3, 0.0)
    return f"the nearest are {some_of(near)}" if len(near) > 1 else f"there is {some_of(near)}"


def count_of(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where it belongs: 1 clip, 2 clips."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}es" if noun.endswith("ss") else f"{number:,} {noun}s"


def launched_count() -> int:
    """Count the processes that a launcher has started for this run."""
    return _number("WORLD_SIZE", 1)


def launched_rank() -> int:
    """Return the rank of this process among them."""
    return _number("RANK", 0) if launched_count() > 1 else 0


@contextmanager
def one_voice() -> Iterator[None]:
    """Let only rank 0 report the errors that all processes find.

    Raises:
        ReportedElsewhere: such an error was raised inside, in another rank.
    """
    try:
        yield
    except (UsageError, Interrupted, TrainingDiverged, KeyboardInterrupt) as error:
        if launched_rank() == 0:
            raise
        code = error.exit_code if isinstance(error, SlrctlError) else Interrupted.exit_code
        raise ReportedElsewhere(code) from None


def _number(name: str, absent: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return absent
    if not text.isdecimal():
        raise UsageError(f"{name}={text}: must be a whole number, as a launcher sets it")
    return int(text)
