"""`slrctl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.options import (
    RUNS_DIR,
    ConfigPath,
    Device,
    Json,
    Overrides,
    SkipBadClips,
    cache_for,
    command,
    refuse_settled,
    setting_layers,
)
from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.files import read_json, write_json

if TYPE_CHECKING:
    from slrctl.evaluation.bootstrap import Evaluation
    from slrctl.evaluation.clips import ClipsToEvaluate
    from slrctl.evaluation.predictions import Predictions
    from slrctl.runs.load import RunWithLayers

SUMMARY = "metrics.json"
PREDICTIONS = "predictions.parquet"
PER_CLASS = "per_class.csv"
CONFUSION = "confusion.png"


@command()
def evaluate(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="A run, or one of its checkpoints; the newest run if absent."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Clips; those of the run if absent."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Which part, or all; test if there is one, else val, by default."
        ),
    ] = None,
    skip_bad_clips: SkipBadClips = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for tables and figures.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over another evaluation that is there.")
    ] = False,
    device: Device = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trained model on clips, with intervals."""
    with report_errors():
        # Imported late: torch takes seconds, and --help does not need it.
        from slrctl.core.devices import keep_freed_memory
        from slrctl.runs.folder import BEST, newest_run
        from slrctl.runs.load import load_with_layers

        path = run or newest_run(RUNS_DIR)
        layers = setting_layers(ctx)
        refuse_settled(layers, "evaluate")
        console = console_for(as_json=as_json)
        keep_freed_memory()
        opened = load_with_layers(path, layers)
        subject = _subject(opened, data, split)
        about = {
            "run_dir": str(opened.run_dir),
            "checkpoint": BEST if path == opened.run_dir else path.name,
            "data": subject.name,
            "fingerprint": subject.dataset.fingerprint(),
        }
        folder = output or opened.run_dir / f"evaluation-{subject.name}"
        if not force:
            _check_folder(folder, about)
        predictions, evaluation = _evaluate(opened, subject)
        _save(folder, about, predictions, evaluation)
        print_lines(console, subject.notes)
        _show(console, opened.run_dir, subject, evaluation, folder)
        if as_json:
            print_json({**about, **evaluation.to_json()})


def _subject(opened: "RunWithLayers", data: Path | None, split: str | None) -> "ClipsToEvaluate":
    from slrctl.evaluation.clips import clips_of_file, clips_of_run

    run_dir, run, settings, _ = opened
    cache = cache_for(settings.data)
    if data is None:
        return clips_of_run(run_dir, run, split, cache)
    return clips_of_file(data, settings, run.classes, split, cache)


def _check_folder(folder: Path, about: dict[str, Any]) -> None:
    """Refuse to write over what does not tell of the same model and clips.

    Raises:
        UsageError: such a file is there.
    """
    names = (SUMMARY, PREDICTIONS, PER_CLASS, CONFUSION)
    taken = [name for name in names if (folder / name).exists()]
    if not taken:
        return
    try:
        found = read_json(folder / SUMMARY)
        of_run = Path(found.pop("run_dir")).absolute() == Path(about["run_dir"]).absolute()
        is_same = of_run and all(found[key] == about[key] for key in about if key != "run_dir")
    except (DataError, LookupError, TypeError, AttributeError):
        is_same = False
    if not is_same:
        raise UsageError(
            f"{folder}: holds the {', '.join(taken)} of another model or of other clips; choose "
            "another --output, or write over it with --force"
        )


def _evaluate(
    opened: "RunWithLayers", subject: "ClipsToEvaluate"
) -> tuple["Predictions", "Evaluation"]:
    from slrctl.core.devices import deterministic
    from slrctl.evaluation.bootstrap import evaluate_predictions
    from slrctl.evaluation.predictions import predict_dataset

    settings = opened.settings
    with deterministic():
        predictions = predict_dataset(opened.run.model, subject.dataset, settings, opened.device)
    evaluation = evaluate_predictions(
        predictions, resamples=settings.evaluate.resamples, seed=settings.seed
    )
    return predictions, evaluation


def _save(
    folder: Path, about: dict[str, Any], predictions: "Predictions", evaluation: "Evaluation"
) -> None:
    from slrctl.evaluation.predictions import write_predictions
    from slrctl.reports.figures import draw_confusion
    from slrctl.reports.tables import write_per_class_csv

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # First, so that a folder half filled tells of what it is.
        write_json(folder / SUMMARY, {**about, **evaluation.to_json()})
        write_predictions(predictions, folder / PREDICTIONS)
        write_per_class_csv(evaluation, folder / PER_CLASS)
        draw_confusion(predictions, folder / CONFUSION, evaluation)
    except OSError as error:
        raise SlrctlError(
            f"{folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None


def _show(
    console: Console,
    run_dir: Path,
    subject: "ClipsToEvaluate",
    evaluation: "Evaluation",
    folder: Path,
) -> None:
    from slrctl.reports.tables import (
        overall_rows,
        percent,
        worst_classes,
    )

    print_table(
        console,
        f"{run_dir} on {subject.name}: {evaluation.clips} clips, {evaluation.classes} classes",
        ["", "value", f"95 % interval, by {evaluation.ci_unit}"],
        [
            *overall_rows(evaluation),
            ("chance", percent(evaluation.chance), ""),
            ("majority class", percent(evaluation.majority_share), ""),
        ],
    )
    if evaluation.note:
        print_lines(console, [f"note: {evaluation.note}"])
    worst = worst_classes(evaluation)
    if worst:
        print_table(
            console,
            "worst classes",
            ["gloss", "clips", "accuracy", "precision", "F1"],
            [
                (row.gloss, str(row.clips), *map(_share, (row.accuracy, row.precision, row.f1)))
                for row in worst
            ],
        )
        print_table(
            console,
            "most confused",
            ["gloss", "taken for", "clips", "share of the gloss"],
            [
                (pair.truth, pair.predicted, str(pair.clips), percent(pair.share))
                for pair in evaluation.confused[:10]
            ],
            num_texts=2,
        )
    print_lines(console, [f"tables and figures in {folder}"])


def _share(value: float | None) -> str:
    from slrctl.reports.tables import percent

    return "-" if value is None else percent(value)
