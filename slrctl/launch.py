"""The rank of this process among those a launcher started; rank 0 speaks for all.

Launchers (`torchrun`, `accelerate launch`, SLURM) set it in variables of the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from slrctl.errors import Interrupted, ReportedElsewhere, TrainingDiverged, UsageError


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
    except (UsageError, Interrupted, TrainingDiverged) as error:
        if launched_rank() == 0:
            raise
        raise ReportedElsewhere(error.exit_code) from None
    except KeyboardInterrupt:
        if launched_rank() == 0:
            raise
        raise ReportedElsewhere(Interrupted.exit_code) from None


def _number(name: str, absent: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return absent
    if not text.isdecimal():
        raise UsageError(f"{name}={text}: must be a whole number, as a launcher sets it")
    return int(text)
