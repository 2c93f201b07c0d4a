"""What a study tells of while its trials run."""

from typing import NamedTuple

from slrctl.studies.ablation.trials import Trial


class TrialStarted(NamedTuple):
    """A trial began, for the first time or once more."""

    trial: Trial


class TrialDone(NamedTuple):
    """A trial is finished; its folder holds everything."""

    trial: Trial


class TrialFailed(NamedTuple):
    """A trial could not be finished; `message` says why, in one line."""

    trial: Trial
    message: str


TrialEvent = TrialStarted | TrialDone | TrialFailed
