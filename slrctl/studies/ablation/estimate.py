"""Say beforehand about how long a study takes."""

import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from slrctl.core.data.splits import Splits
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import TrainingDiverged
from slrctl.settings import Settings
from slrctl.studies.ablation.trials import Trial
from slrctl.training.loop import BatchReport, train_epochs
from slrctl.training.run_batches import training_data
from slrctl.training.state import TrainingState

_STEPS = 5
# A forward pass takes about a third of a training step.
_EVALUATION_SHARE = 1 / 3


def estimate_seconds(
    trials: Sequence[Trial], splits: Splits, *, jobs: int, threads: int
) -> float | None:
    """Time a few steps of the most demanding variant, and count those of all trials.

    Args:
        trials: those still to be run, at least one.
        splits: the clips of one of them.
        jobs: trials at a time.
        threads: of torch in each.

    Returns:
        None where every variant diverges before it has taken a step.
    """
    variants: dict[str, Settings] = {}
    for trial in trials:
        variants.setdefault(trial.variant, trial.settings)
    dearest_first = sorted(variants.values(), key=lambda one: one.cmcl.is_on, reverse=True)
    timed = ((settings, _step_seconds(settings, splits, threads)) for settings in dearest_first)
    dearest, seconds = next((pair for pair in timed if pair[1] is not None), (None, None))
    if dearest is None or seconds is None:
        return None
    evaluated = len(splits.val) / dearest.train.batch_size * _EVALUATION_SHARE
    total = 0.0
    for trial in trials:
        steps = len(splits.train) / trial.settings.train.batch_size + evaluated
        total += trial.settings.train.epochs * steps * seconds
    return total / min(jobs, len(trials))


def _step_seconds(settings: Settings, splits: Splits, threads: int) -> float | None:
    """Median time of a step, after the first where there are more; None where none was taken."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times: list[float] = []
    try:
        # A variant that diverges fails when its trial runs, and is told of there.
        with deterministic(), suppress(TrainingDiverged):
            device = choose_device(settings.train.device)
            state = TrainingState.initial(settings, splits.train.classes, device)
            times.append(time.perf_counter())
            for report in train_epochs(state, training_data(settings, splits)):
                if isinstance(report, BatchReport):
                    times.append(time.perf_counter())
                if len(times) > _STEPS:
                    break
    finally:
        torch.set_num_threads(before)
    steps = [after - start for start, after in itertools.pairwise(times)]
    # The first step builds what the others find ready.
    return statistics.median(steps[1:] or steps) if steps else None
