"""A profile of training steps: shares of the time by phase and by operator of torch."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from slrctl.core.data.batches import MicroBatch
from slrctl.core.data.splits import Splits
from slrctl.core.devices import choose_device, deterministic, keep_freed_memory, one_thread
from slrctl.errors import SlrctlError, UsageError
from slrctl.files import replacing
from slrctl.settings import Settings, merge
from slrctl.training.loop import PHASES, BatchReport, TrainingData, train_epochs
from slrctl.training.state import TrainingState

WARM_UP, STEPS, MOST_OPERATORS = 3, 10, 10


class OperatorCost(NamedTuple):
    """The time of an operator, without those it called."""

    name: str
    share: float
    calls: int
    seconds: float


class ProfileReport(NamedTuple):
    """Shares of the time of `steps` steps, by phase and by operator, the dearest first.

    `seconds` and `num_clips` are of the steps before, without the profiler, which slows them.
    """

    phases: dict[str, float]
    operators: list[OperatorCost]
    num_clips: int
    seconds: float
    steps: int


def profile_training(settings: Settings, splits: Splits, trace: Path) -> ProfileReport:
    """Take some steps of a training, and some more under a profiler; keep only the trace.

    An epoch with too few clips is repeated. The trace is in the format of Chrome's and Perfetto's
    viewers.

    Raises:
        SlrctlError: the trace cannot be written.
        UsageError: something is there already.
    """
    if trace.exists():
        raise UsageError(f"--profile {trace}: is there already; name another file, or remove it")
    if not trace.parent.is_dir():
        raise UsageError(f"--profile {trace}: there is no folder {trace.parent}; make it first")
    keep_freed_memory()
    settings = Settings.model_validate(
        merge(settings.model_dump(), {"train": {"epochs": 10**6, "patience": 0}})
    )
    with deterministic():
        device = choose_device(settings.train.device)
        state = TrainingState.initial(settings, splits.train.classes, device)
        steps = _steps(state, TrainingData.of_splits(splits, settings, device))
        list(itertools.islice(steps, WARM_UP))
        started = time.perf_counter()
        timed = list(itertools.islice(steps, STEPS))
        _synchronize(device)
        seconds = time.perf_counter() - started
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        # A profiler sees the thread that it was started in.
        with one_thread(), profile(activities=activities) as watched:
            list(itertools.islice(steps, STEPS))
            _synchronize(device)
    try:
        with replacing(trace) as unfinished:
            watched.export_chrome_trace(str(unfinished))
    except (OSError, RuntimeError) as error:
        raise SlrctlError(f"{trace}: the trace cannot be written there ({error})") from None
    num_clips = sum(report.num_clips for report in timed)
    return ProfileReport(*_shares(watched, device), num_clips, seconds, STEPS)


def _steps(state: TrainingState, data: TrainingData) -> Iterator[BatchReport]:
    """Take steps of an epoch that does not end, so that no validation comes in between."""
    epochs = (data.training(epoch, 0) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(epochs)

    def training(epoch: int, start: int) -> Iterator[list[MicroBatch]]:
        while True:
            with record_function(PHASES[0]):  # making a batch is the phase `data`
                batch = next(batches)
            yield batch

    steps = train_epochs(state, data._replace(training=training))
    return (report for report in steps if isinstance(report, BatchReport))


def _shares(watched: profile, device: torch.device) -> tuple[dict[str, float], list[OperatorCost]]:
    events = watched.key_averages()
    of_phase = {event.key: event.cpu_time_total for event in events if event.key in PHASES}
    whole = sum(of_phase.values()) or 1.0
    phases = {name: of_phase.get(name, 0.0) / whole for name in PHASES}
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    costs = [(event, getattr(event, own)) for event in events if event.key not in PHASES]
    total = sum(cost for _, cost in costs) or 1.0
    dearest = sorted(costs, key=lambda pair: -pair[1])[:MOST_OPERATORS]
    return phases, [
        OperatorCost(event.key, cost / total, event.count, cost / 1e6) for event, cost in dearest
    ]


def _synchronize(device: torch.device) -> None:
    """Wait for what an accelerator has still to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
