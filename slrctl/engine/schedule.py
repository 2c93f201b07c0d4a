"""The learning rate as a function of the position in a training; there is no state to lose."""

import math

from slrctl.settings import TrainSettings


def learning_rate(settings: TrainSettings, epoch: int, share_of_epoch: float) -> float:
    """The rate of a step.

    Args:
        settings: names the schedule, its peak and its warm-up.
        epoch: counted from 0.
        share_of_epoch: how much of the epoch lies behind, 0 to 1.
    """
    position = epoch + share_of_epoch
    if position < settings.warmup_epochs:
        # The first step of a warm-up must not be idle, so it counts a hundredth of an epoch.
        return settings.learning_rate * max(position, 0.01) / settings.warmup_epochs
    match settings.schedule:
        case "constant":
            factor = 1.0
        case "multistep":
            passed = epoch / settings.epochs
            factor = 0.01 if passed >= 0.8 else 0.1 if passed >= 0.6 else 1.0
        case "cosine":
            length = max(settings.epochs - settings.warmup_epochs, 1e-9)
            behind = (position - settings.warmup_epochs) / length
            factor = 0.5 * (1 + math.cos(math.pi * behind))
    return settings.learning_rate * factor
