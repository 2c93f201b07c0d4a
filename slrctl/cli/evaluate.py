"""`slrctl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    cache_for,
    refuse_settled,
    setting_layers,
)
from slrctl.cli.train import RUNS_DIR
from slrctl.errors import DataError, SlrctlError
from slrctl.layers import Layer, resolve

if TYPE_CHECKING:
    from slrctl.engine.bootstrap import Evaluation
    from slrctl.engine.predictions import Predictions
    from slrctl.engine.subject import Subject
    from slrctl.settings import Settings


def evaluate(
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
    skip_bad_clips: Annotated[
        bool,
        typer.Option("--skip-bad-clips", help="Leave bad clips of --data out and say how many."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for tables and figures.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, mps.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a trained model on clips, with intervals."""
    with report_errors():
        # Imported late: torch takes seconds, and --help does not need it.
        from slrctl.engine.run_folder import folder_of, newest_run, read_settings

        run = run or newest_run(RUNS_DIR)
        run_dir = folder_of(run)
        flags = {
            "--device": ("train.device", device),
            "--skip-bad-clips": ("data.skip_bad_clips", skip_bad_clips or None),
        }
        layers = setting_layers(config, overrides, flags=flags)
        saved = Layer(f"run {run_dir}", read_settings(run_dir))
        own = resolve([saved]).settings
        settings = resolve([saved, *layers]).settings
        refuse_settled(layers, "evaluate")
        console = console_for(as_json=as_json)
        subject, predictions, evaluation = _evaluate(run, own, settings, data, split)
        folder = output or run_dir / f"evaluation-{subject.name}"
        _save(folder, subject, run_dir, predictions, evaluation)
        print_lines(console, subject.notes)
        _show(console, run_dir, subject, evaluation, folder)
        if as_json:
            print_json(_summary(run_dir, subject, evaluation))


def _evaluate(
    run_path: Path, own: "Settings", settings: "Settings", data: Path | None, split: str | None
) -> tuple["Subject", "Predictions", "Evaluation"]:
    """Predict the chosen clips; `own` are the run's settings, `settings` those asked for now."""
    from slrctl.engine.bootstrap import evaluate_predictions
    from slrctl.engine.run_batches import predict_part
    from slrctl.engine.run_folder import folder_of, load_run
    from slrctl.engine.runtime import choose_device, deterministic, keep_freed_memory
    from slrctl.engine.subject import other_clips, own_clips

    device = choose_device(settings.train.device)
    keep_freed_memory()
    run_dir, run = folder_of(run_path), load_run(run_path, device)
    if (own.model, own.prepare) != (run.settings.model, run.settings.prepare):
        raise DataError(
            f"{run_dir}: settings.toml names another model or preparation than its checkpoint was "
            "trained with; put the file back as it was"
        )
    cache = cache_for(settings.data)
    if data is None:
        subject = own_clips(run_dir, own, run.classes, split, cache)
    else:
        subject = other_clips(settings, run.classes, data, split, cache)
    with deterministic():
        predictions = predict_part(run, settings, subject.dataset, device)
    evaluation = evaluate_predictions(
        predictions, resamples=settings.evaluate.resamples, seed=settings.seed
    )
    return subject, predictions, evaluation


def _save(
    folder: Path,
    subject: "Subject",
    run_dir: Path,
    predictions: "Predictions",
    evaluation: "Evaluation",
) -> None:
    from slrctl.engine.predictions import write_predictions
    from slrctl.engine.run_folder import write_json
    from slrctl.reports.evaluation_tables import write_per_class_csv
    from slrctl.reports.figures import draw_confusion

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", _summary(run_dir, subject, evaluation))
        write_predictions(predictions, folder / "predictions.parquet")
        write_per_class_csv(evaluation, folder / "per_class.csv")
        draw_confusion(predictions, folder / "confusion.png", evaluation)
    except OSError as error:
        raise SlrctlError(
            f"{folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None


def _summary(run_dir: Path, subject: "Subject", evaluation: "Evaluation") -> dict[str, Any]:
    return {
        "run_dir": str(run_dir),
        "data": subject.name,
        "fingerprint": subject.dataset.fingerprint(),
        **evaluation.to_json(),
    }


def _show(
    console: Console, run_dir: Path, subject: "Subject", evaluation: "Evaluation", folder: Path
) -> None:
    from slrctl.reports.evaluation_tables import (
        most_confused,
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
                for pair in most_confused(evaluation)
            ],
            num_texts=2,
        )
    print_lines(console, [f"tables and figures in {folder}"])


def _share(value: float | None) -> str:
    from slrctl.reports.evaluation_tables import percent

    return "-" if value is None else percent(value)
