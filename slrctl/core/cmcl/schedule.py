"""The adaptive schedule: both lambdas warm up, then decay."""

import math


def adaptive_factor(epoch: int, warmup_epochs: int = 10, decay: float = 0.95) -> float:
    """What both lambdas are multiplied by in an epoch, counted from 0.

    (epoch + 1) / warmup_epochs during the warm-up, which reaches 1 in its last epoch; then `decay`
    once for every epoch after it. Never 0.
    """
    if epoch < warmup_epochs:
        return (epoch + 1) / warmup_epochs
    return decay ** (epoch - warmup_epochs + 1)


def default_warmup(num_epochs: int) -> int:
    """10 epochs; in a run under 100, a tenth of it."""
    return 10 if num_epochs >= 100 else math.ceil(0.1 * num_epochs)
