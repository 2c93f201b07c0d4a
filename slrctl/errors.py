"""The errors a user can act on, each with the code the command exits with.

A message is one line: the value found, the rule it breaks, and what to do next. Anything that is
not one of these is a bug and keeps its traceback.
"""


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
