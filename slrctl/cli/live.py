"""Show a training while it runs: two bars in a terminal, one plain line an epoch elsewhere."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from slrctl.engine.training import BatchReport, EpochReport

_TERMS = (("classification", "CE"), ("consistency", "consistency"), ("alignment", "alignment"))


class TrainingView(Protocol):
    """What shows the reports of a training."""

    def show_batch(self, report: "BatchReport") -> None: ...

    def show_epoch(self, report: "EpochReport") -> None: ...


def training_view(console: Console, num_epochs: int) -> AbstractContextManager[TrainingView]:
    """Bars where somebody looks at a terminal; plain lines in a pipe or under NO_COLOR."""
    if console.is_terminal and not os.environ.get("NO_COLOR") and not console.quiet:
        return _bars(console, num_epochs)
    return _lines(console, num_epochs)


def describe_terms(means: Mapping[str, float | None], prefix: str = "") -> str:
    """The terms of the loss and the accuracy, as far as they were computed."""
    shown = [
        f"{title} {value:.4f}"
        for name, title in _TERMS
        if (value := means.get(f"{prefix}{name}")) is not None
    ]
    accuracy = means.get(f"{prefix}accuracy")
    if accuracy is not None:
        shown.append(f"accuracy {100 * accuracy:.1f} %")
    return "  ".join(shown)


class _Lines:
    def __init__(self, console: Console, num_epochs: int) -> None:
        self.console, self.num_epochs = console, num_epochs

    def show_batch(self, report: "BatchReport") -> None:
        """A pipe gets no line for a batch."""

    def show_epoch(self, report: "EpochReport") -> None:
        self.console.print(Text(_epoch_line(report, self.num_epochs)))


class _Bars:
    def __init__(self, progress: Progress, num_epochs: int) -> None:
        self.progress = progress
        self.epochs = progress.add_task("epochs", total=num_epochs, note="")
        self.batches = progress.add_task("batches", total=None, note="")
        self.clips, self.started = 0, time.perf_counter()

    def show_batch(self, report: "BatchReport") -> None:
        if report.batch == 1:
            self.clips, self.started = 0, time.perf_counter()
        else:  # the first batch starts the clock, so that it measures whole steps
            self.clips += report.num_clips
        seconds = time.perf_counter() - self.started
        rate = f"{self.clips / seconds:.0f} clips/s  " if self.clips else ""
        self.progress.update(
            self.batches,
            completed=report.batch,
            total=report.num_batches,
            note=rate + describe_terms(report.means),
        )
        done = report.epoch - 1 + report.batch / report.num_batches
        self.progress.update(self.epochs, completed=done)

    def show_epoch(self, report: "EpochReport") -> None:
        validation = f"validation {100 * report.metrics['val_accuracy']:.1f} %"
        best = "  best so far" if report.is_best else ""
        self.progress.update(self.epochs, completed=report.epoch, note=validation + best)


@contextmanager
def _lines(console: Console, num_epochs: int) -> Iterator[TrainingView]:
    yield _Lines(console, num_epochs)


@contextmanager
def _bars(console: Console, num_epochs: int) -> Iterator[TrainingView]:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),  # whole epochs, while the bar moves with every batch
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        yield _Bars(progress, num_epochs)


def _epoch_line(report: "EpochReport", num_epochs: int) -> str:
    metrics = report.metrics
    speed = metrics["clips_per_second"]
    return (
        f"epoch {report.epoch:>{len(str(num_epochs))}}/{num_epochs}  "
        f"{describe_terms(metrics, 'train_')}  "
        f"validation {100 * metrics['val_accuracy']:.1f} %"
        + (f"  {speed:.0f} clips/s" if speed else "")
        + ("  best" if report.is_best else "")
    )
