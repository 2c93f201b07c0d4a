"""A training in the terminal: the header, bars or lines while it runs, and its results."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from slrctl.cli.console import Display, stopping_on_signals
from slrctl.cli.options import RUNS_DIR
from slrctl.core.clip import missing_hand_share
from slrctl.core.data.cache import open_cache
from slrctl.core.data.splits import Splits, load_splits
from slrctl.core.devices import choose_device, choose_precision, describe_device
from slrctl.core.model.build import num_parameters
from slrctl.errors import DataError, Interrupted, SlrctlError, UsageError, launched_count
from slrctl.layers import cmcl_name
from slrctl.reports.figures import draw_curves
from slrctl.reports.tables import overall_rows
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import is_intact
from slrctl.runs.folder import changes, describe_machine, resume_command
from slrctl.settings import CMCL_TERMS, MODELS_WITH_STREAMS, Settings
from slrctl.training.find_lambdas import SHARES, LambdaReport, find_lambdas
from slrctl.training.loop import BatchReport, EpochReport
from slrctl.training.processes import SINGLE, ProcessGroup, StopRequest, joined_group
from slrctl.training.profile import profile_training
from slrctl.training.resume import SavedRun, find_saved_run, newest_interrupted
from slrctl.training.run import Reports, RunReport, resume_training, run_training, try_one_batch

LAMBDA_STEPS = 200
# The terms of the loss, with the titles they are shown under.
_TERMS = {"classification": "CE", **{name: name for name in CMCL_TERMS}}


def train_run(settings: Settings, place: Path | None, display: Display, *, force: bool) -> None:
    """Train a new run and show it, in a folder of its own under `runs/` if no place is given."""
    stop = StopRequest()
    with stopping_on_signals(stop), joined_group(settings.train.device) as group:
        if place is not None:  # before the data, which may take long to read
            group.on_first(lambda: run_folder.check_run_dir(place, force=force))
        splits = _load_and_show(settings, display, group)
        run_dir = place or _default_run_dir(settings, splits, group)
        reports = run_training(settings, splits, run_dir, force=force, stop=stop, group=group)
        _show_run(reports, run_dir, settings, display, group)


def resume_run(run: Path | None, display: Display) -> None:
    """Go on with a run and show it; with the newest interrupted one if none is named."""
    saved = find_saved_run(run or newest_interrupted(RUNS_DIR))
    if saved.is_finished:
        _show_finished(saved, display)
        return
    settings, stop = saved.settings, StopRequest()
    try:
        with stopping_on_signals(stop), joined_group(settings.train.device) as group:
            threads = saved.environment.get("threads")
            if isinstance(threads, int) and threads > 0:  # another number may change the last bits
                torch.set_num_threads(threads)
            splits = _load_and_show(settings, display, group)
            display.lines(*_resumption(saved, group))
            reports = resume_training(saved, splits, stop=stop, group=group)
            _show_run(reports, saved.run_dir, settings, display, group)
    except KeyboardInterrupt:  # before there was anything new to save
        raise Interrupted(f"interrupted; go on with: {resume_command(saved.run_dir)}") from None


def try_training(settings: Settings, display: Display) -> None:
    """Read the data, take one step and say what a training would be."""
    with joined_group(settings.train.device) as group:
        splits = _load_and_show(settings, display, group)
        report, seconds = try_one_batch(settings, splits, group)
    display.lines(
        f"one batch of {report.num_clips} clips: {describe_terms(report.means)}; "
        f"{report.num_batches} such batches an epoch, {settings.train.epochs} epochs. "
        "No run was saved."
    )
    display.json(
        {
            "parameters": num_parameters(settings.model, len(splits.train.classes)),
            "batches_per_epoch": report.num_batches,
            "clips_in_batch": report.num_clips,
            "seconds": seconds,
            **report.means,
        }
    )


def show_lambdas(settings: Settings, display: Display) -> None:
    """Train a little and show how large lambdas must be."""
    splits = _load_alone("--find-lambdas", settings, display)
    reports = find_lambdas(settings, splits, steps=LAMBDA_STEPS)
    *_, result = track(reports, "steps", LAMBDA_STEPS + 1, console=display.console, transient=True)
    if not isinstance(result, LambdaReport):
        raise TypeError(f"the last report is a {type(result).__name__}")
    display.table(
        "lambda at which a term's gradient is",
        ["term", *(f"{100 * share:g} % of CE's" for share in SHARES), "cosine with CE"],
        [
            [name, *(_number(scale.lambdas[share]) for share in SHARES), _number(scale.cosine)]
            for name, scale in result.scales.items()
        ],
    )
    display.lines(
        f"medians of {result.measured} measurements in the later half of {result.steps} steps; "
        "nothing was written",
        "set them with --lambda-consistency and --lambda-alignment",
    )
    display.json(result.to_json())


def show_profile(settings: Settings, trace: Path, display: Display) -> None:
    """Take some steps under a profiler, and show which phases and operators take the time."""
    splits = _load_alone("--profile", settings, display)
    report = profile_training(settings, splits, trace)
    display.table(
        "where a step's time goes",
        ["phase", "share"],
        [[name, f"{share:.1%}"] for name, share in report.phases.items()],
    )
    display.table(
        "the dearest operators, each without those it calls",
        ["operator", "share", "calls", "seconds"],
        [
            [cost.name, f"{cost.share:.1%}", f"{cost.calls:,}", f"{cost.seconds:.3f}"]
            for cost in report.operators
        ],
    )
    speed = report.num_clips / report.seconds
    display.lines(
        f"{speed:,.1f} clips a second before the profiler; {report.steps} steps profiled; "
        "no run was saved",
        f"timeline in {trace}: open it in ui.perfetto.dev or chrome://tracing",
    )
    display.json(
        {
            "phases": report.phases,
            "operators": [cost._asdict() for cost in report.operators],
            "clips_per_second": speed,
            "steps": report.steps,
            "trace": str(trace),
        }
    )


def _load_alone(flag: str, settings: Settings, display: Display) -> Splits:
    if launched_count() > 1:
        raise UsageError(f"{flag}: takes one process; start it without a launcher")
    return _load_and_show(settings, display, SINGLE)


def _load_and_show(settings: Settings, display: Display, group: ProcessGroup) -> Splits:
    splits = group.together(lambda: load_splits(settings, open_cache(settings.data)))
    if display.console.quiet and group.rank == 0:
        warnings = [note for note in splits.notes if "warning: " in note]
        Display(as_json=True).lines(*warnings)
    _show_header(display, settings, splits)
    return splits


def _default_run_dir(settings: Settings, splits: Splits, group: ProcessGroup) -> Path:
    loss = cmcl_name(settings).replace(" ", "-") if settings.cmcl.is_on else "ce"
    name = f"{splits.train.name}-{loss}-seed{settings.seed}"
    made = group.on_first(lambda: str(run_folder.free_run_dir(RUNS_DIR, name)))
    return Path(next(path for path in group.gather([made]) if path is not None))


def _show_run(
    reports: Reports, run_dir: Path, settings: Settings, display: Display, group: ProcessGroup
) -> None:
    """Show the reports of a run as they come, then its results."""
    finished = None
    view = EpochView(display, settings)
    try:
        with view.bars:
            for report in reports:
                if isinstance(report, RunReport):
                    finished = report
                elif isinstance(report, EpochReport):
                    view.show_epoch(report)
                else:
                    view.show_batch(report)
            if group.rank == 0:
                _draw_curves(run_dir)
    except KeyboardInterrupt:
        if not (run_dir / run_folder.SETTINGS).exists():
            raise
        raise Interrupted(f"interrupted; go on with: {resume_command(run_dir)}") from None
    if finished is not None:
        _show_results(display, finished, run_dir)
        display.json(finished.summary)


def _show_finished(saved: SavedRun, display: Display) -> None:
    run_dir = saved.run_dir
    if not is_intact(run_dir / run_folder.BEST):
        raise DataError(
            f"{run_dir}: finished, but its {run_folder.BEST} is missing or damaged; put it "
            "back as it was, or train again with --force"
        )
    if not (run_dir / run_folder.CURVES).exists():  # it was killed just before the very end
        with run_folder.holding(run_dir):
            run_folder.remove_unfinished(run_dir)
            _draw_curves(run_dir)
    display.lines(f"{run_dir}: finished already; next: slrctl evaluate {run_dir}")
    display.json(run_folder.read_summary(run_dir))


def _draw_curves(run_dir: Path) -> None:
    try:
        draw_curves(run_folder.read_metrics(run_dir), run_dir / run_folder.CURVES)
    except OSError as error:
        raise SlrctlError(
            f"{run_dir}: its curves cannot be drawn ({error.strerror or error}); the run itself is "
            f"whole; make room, then: {resume_command(run_dir)}"
        ) from None


def _resumption(saved: SavedRun, group: ProcessGroup) -> Iterator[str]:
    if saved.state_path is None:
        yield f"{saved.run_dir}: nothing was saved before it stopped; it begins again"
    else:
        yield f"going on {saved.progress.position}, from {saved.state_path}"
    now = describe_machine(group.device(saved.settings.train.device))
    for change in changes(saved.environment, now):
        yield f"warning: {change}; the last bits may differ from a run without interruption"


def _show_header(display: Display, settings: Settings, splits: Splits) -> None:
    device = choose_device(settings.train.device)
    precision = choose_precision(settings.train.precision, device)
    parameters = num_parameters(settings.model, len(splits.train.classes))
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.by_name.items())
    signers = {clip.signer for split in splits.by_name.values() for clip in split} - {None}
    left, right = missing_hand_share(splits.train)
    train, patience = settings.train, settings.train.patience
    streams = "one stream"
    if settings.model.name in MODELS_WITH_STREAMS:
        streams = f"cross-attention {'on' if settings.model.cross_attention else 'off'}"
    display.facts(
        {
            "data": f"{splits.train.name}: {counts} clips, {len(splits.train.classes)} glosses, "
            + (f"{len(signers)} signers" if signers else "signers not stated"),
            "hands": f"left missing in {100 * left:.0f} %, right in {100 * right:.0f} % of "
            "training frames",
            "model": f"{settings.model.name}, {parameters:,} parameters, {streams}",
            "loss": describe_loss(settings),
            "run": f"{train.epochs} epochs"
            + (f" or {patience} without a better one" if patience else "")
            + f", batch {train.batch_size}, learning rate {train.learning_rate:g}, recipe "
            f"{settings.recipe}, seed {settings.seed}, {precision} on {device} "
            f"({describe_device(device)})",
        }
    )
    display.lines(*splits.notes)


def describe_loss(settings: Settings) -> str:
    """Describe the terms of the loss, their forms and lambdas, and the preset in force."""
    cmcl = settings.cmcl
    if not cmcl.is_on:
        return "cross-entropy (CMCL off)"
    consistency = cmcl.divergence if cmcl.consistency == "kl" else "cycle"
    if cmcl.temporal:
        consistency += " + temporal"
    if cmcl.consistency == "kl" or cmcl.temporal:
        consistency += f", temperature {cmcl.temperature:g}"
    forms = [cmcl.alignment] if cmcl.alignment != "cosine" else []
    forms += ["every layer"] if cmcl.multi_scale else []
    alignment = f"alignment ({', '.join(forms)})" if forms else "alignment"
    return (
        f"cross-entropy + {cmcl.lambda_consistency:g} consistency ({consistency}) "
        f"+ {cmcl.lambda_alignment:g} {alignment}, "
        f"{'adaptive' if cmcl.adaptive else 'fixed'} lambdas (CMCL {cmcl_name(settings)})"
    )


class EpochView:
    """Two bars where somebody looks at a terminal; a plain line an epoch elsewhere."""

    def __init__(self, display: Display, settings: Settings) -> None:
        self.display, self.train = display, settings.train
        console = display.console
        self.bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),  # whole epochs, while the bar moves with every batch
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            speed_estimate_period=120,
            disable=not console.is_terminal or console.no_color or console.quiet,
        )
        self.epochs = self.bars.add_task("epochs", total=self.train.epochs, note="")
        self.batches = self.bars.add_task("batches", total=None, note="")

    def show_batch(self, report: BatchReport) -> None:
        if report.batch == 1:
            self.bars.reset(self.batches, total=report.num_batches)
        speed = (self.bars.tasks[self.batches].speed or 0.0) * self.train.batch_size
        self.bars.update(
            self.batches,
            completed=report.batch,
            note=(f"{speed:.0f} clips/s  " if speed else "") + describe_terms(report.means),
        )
        done = report.epoch - 1 + report.batch / report.num_batches
        self.bars.update(self.epochs, completed=done)

    def show_epoch(self, report: EpochReport) -> None:
        validation = f"validation {100 * report.metrics['val_accuracy']:.1f} %"
        if self.bars.disable:
            self.display.lines(self._line(report, validation))
        else:
            best = "  best so far" if report.is_best else ""
            self.bars.update(self.epochs, completed=report.epoch, note=validation + best)
        self.display.lines(
            *(describe_diagnostics(report.metrics) if self.train.diagnostics else ()),
            *(f"warning: epoch {report.epoch}: {warning}" for warning in report.warnings),
        )

    def _line(self, report: EpochReport, validation: str) -> str:
        speed = report.metrics["clips_per_second"]
        return (
            f"epoch {report.epoch:>{len(str(self.train.epochs))}}/{self.train.epochs}  "
            f"{describe_terms(report.metrics, 'train_')}  {validation}"
            + (f"  {speed:.0f} clips/s" if speed else "")
            + ("  best" if report.is_best else "")
        )


def describe_terms(means: Mapping[str, float | None], prefix: str = "") -> str:
    """Describe the terms of the loss and the accuracy, as far as they were computed."""
    shown = [
        f"{title} {value:.4f}"
        for name, title in _TERMS.items()
        if (value := means.get(f"{prefix}{name}")) is not None
    ]
    accuracy = means.get(f"{prefix}accuracy")
    if accuracy is not None:
        shown.append(f"accuracy {100 * accuracy:.1f} %")
    return "  ".join(shown)


def describe_diagnostics(metrics: Mapping[str, Any]) -> list[str]:
    """Describe the terms of CMCL in an epoch; without cross-attention there is nothing to say."""
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
        for term in CMCL_TERMS
        if own and (norm := metrics.get(f"gradient_norm_{term}")) is not None
    ]
    if shares:
        share = 100 * (metrics["train_contributing_share"] or 0.0)
        lines.append(f"gradient over that of CE: {', '.join(shares)}")
        lines.append(f"clips that contribute to consistency: {share:.0f} %")
    return [f"  {line}" for line in lines]


def _show_results(display: Display, finished: RunReport, run_dir: Path) -> None:
    splits = [("validation", finished.validation), ("test", finished.test)]
    columns = [(name, evaluation) for name, evaluation in splits if evaluation is not None]
    rows = zip(*(overall_rows(evaluation) for _, evaluation in columns), strict=True)
    display.table(
        f"best epoch {finished.summary['best_epoch']} of {finished.summary['epochs']}",
        ["", *(heading for name, _ in columns for heading in (name, "95 % interval"))],
        [[row[0][0], *(text for one in row for text in one[1:])] for row in rows],
    )
    display.lines(
        *(f"{name}: {evaluation.note}" for name, evaluation in columns if evaluation.note),
        f"saved in {run_dir}; next:",
        f"  slrctl evaluate {run_dir}",
        f"  slrctl evaluate {run_dir} --data OTHER_CLIPS",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
