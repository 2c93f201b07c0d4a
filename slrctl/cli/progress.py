"""Show a training while it runs: two bars in a terminal, one plain line an epoch elsewhere."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slrctl.cli.console import print_lines

if TYPE_CHECKING:
    from slrctl.training.loop import BatchReport, EpochReport


_TERMS = (("classification", "CE"), ("consistency", "consistency"), ("alignment", "alignment"))


class TrainingView(Protocol):
    """What shows the reports of a training."""

    def show_batch(self, report: "BatchReport") -> None: ...

    def show_epoch(self, report: "EpochReport") -> None: ...


def training_view(
    console: Console, num_epochs: int, *, diagnostics: bool = False
) -> AbstractContextManager[TrainingView]:
    """Bars where somebody looks at a terminal; plain lines in a pipe or under NO_COLOR.

    With `diagnostics`, what CMCL does is written after every epoch.
    """
    remarks = _Remarks(console, diagnostics)
    if console.is_terminal and not os.environ.get("NO_COLOR") and not console.quiet:
        return _bars(remarks, num_epochs)
    return _lines(remarks, num_epochs)


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


def describe_diagnostics(metrics: Mapping[str, Any]) -> list[str]:
    """What the terms of CMCL did in an epoch, in a few lines; nothing without cross-attention."""
    lines = []
    forth, back = (metrics.get(f"val_entropy_{way}") for way in ("left_to_right", "right_to_left"))
    if forth is not None and back is not None:
        lines.append(f"entropy over uniform: left to right {forth:.3f}, right to left {back:.3f}")
    streams = [
        f"{stream.replace('_', ' ')} {variance:.3f} / {metrics[f'val_rank_{stream}']:.1f}"
        for stream in ("left_hand", "right_hand", "body")
        if (variance := metrics.get(f"val_variance_{stream}")) is not None
    ]
    if streams:
        lines.append(f"variance of features / effective rank: {', '.join(streams)}")
    own = metrics.get("gradient_norm_classification")
    shares = [
        f"{term} {100 * norm / own:.2g} % (cosine {metrics[f'gradient_cosine_{term}']:.2f})"
        for term in ("consistency", "alignment")
        if own and (norm := metrics.get(f"gradient_norm_{term}")) is not None
    ]
    if shares:
        share = 100 * (metrics["train_contributing_share"] or 0.0)
        lines.append(f"gradient over that of CE: {', '.join(shares)}")
        lines.append(f"clips that contribute to consistency: {share:.0f} %")
    return [f"  {line}" for line in lines]


class _Remarks:
    """Lines below an epoch: warnings, and diagnostics where they were asked for."""

    def __init__(self, console: Console, diagnostics: bool) -> None:
        self.console, self.diagnostics = console, diagnostics

    def show(self, report: "EpochReport") -> None:
        lines = describe_diagnostics(report.metrics) if self.diagnostics else []
        lines += [f"warning: epoch {report.epoch}: {warning}" for warning in report.warnings]
        print_lines(self.console, lines)


class _Lines:
    def __init__(self, remarks: _Remarks, num_epochs: int) -> None:
        self.remarks, self.num_epochs = remarks, num_epochs

    def show_batch(self, report: "BatchReport") -> None:
        """A pipe gets no line for a batch."""

    def show_epoch(self, report: "EpochReport") -> None:
        print_lines(self.remarks.console, [_epoch_line(report, self.num_epochs)])
        self.remarks.show(report)


class _Bars:
    def __init__(self, progress: Progress, remarks: _Remarks, num_epochs: int) -> None:
        self.progress, self.remarks = progress, remarks
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
        self.remarks.show(report)


@contextmanager
def _lines(remarks: _Remarks, num_epochs: int) -> Iterator[TrainingView]:
    yield _Lines(remarks, num_epochs)


@contextmanager
def _bars(remarks: _Remarks, num_epochs: int) -> Iterator[TrainingView]:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),  # whole epochs, while the bar moves with every batch
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=remarks.console, speed_estimate_period=120) as progress:
        yield _Bars(progress, remarks, num_epochs)


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
