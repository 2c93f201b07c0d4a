"""What a launcher tells a process of several: its place, and so whether it speaks for all.

Launchers (`torchrun`, `accelerate launch`, SLURM) say it in variables of the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from slrctl.errors import Interrupted, ReportedElsewhere, TrainingDiverged, UsageError


def launched_count() -> int:
    """How many processes a launcher has started for this run."""
    return _number("WORLD_SIZE", 1)


def launched_rank() -> int:
    """The place of this process among them; the first one speaks for all."""
    return _number("RANK", 0) if launched_count() > 1 else 0


@contextmanager
def one_voice() -> Iterator[None]:
    """Let only the first process tell what all of them find out.

    Raises:
        ReportedElsewhere: what was raised inside, in any process but the first.
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
