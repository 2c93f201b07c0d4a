"""The evaluation of a run on clips: its numbers, and a folder of tables and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from slrctl.core.data.cache import open_cache
from slrctl.core.devices import deterministic, keep_freed_memory
from slrctl.errors import DataError, UsageError
from slrctl.evaluation.bootstrap import Evaluation, evaluate_predictions
from slrctl.evaluation.clips import clips_of_file, clips_of_run
from slrctl.evaluation.predictions import predict_dataset, write_predictions
from slrctl.files import read_json, write_json, writing_to
from slrctl.layers import Layer
from slrctl.reports.figures import draw_confusion
from slrctl.reports.tables import write_csv
from slrctl.runs.checkpoint import load_with_layers
from slrctl.runs.folder import BEST, newest_run

SUMMARY = "metrics.json"
PREDICTIONS = "predictions.parquet"
PER_CLASS = "per_class.csv"
CONFUSION = "confusion.png"


class EvaluationReport(NamedTuple):
    """An evaluation, the model and the clips it is about, and the folder it was written to."""

    about: dict[str, str]
    notes: tuple[str, ...]
    evaluation: Evaluation
    folder: Path

    def to_json(self) -> dict[str, Any]:
        return {**self.about, **self.evaluation.to_json()}


def evaluate_run(
    run: Path | None,
    runs_dir: Path,
    layers: Sequence[Layer],
    data: Path | None,
    split: str | None,
    output: Path | None,
    *,
    force: bool,
) -> EvaluationReport:
    """Evaluate a run and write the results.

    Args:
        run: folder of the run, or a checkpoint in it; the newest run if absent.
        runs_dir: folder of runs.
        layers: settings to lay over those of the run.
        data: a file of clips; those of the run if absent.
        split: see `clips_of_run` and `clips_of_file`.
        output: folder of the results; one in the run's folder if absent.
        force: overwrite another evaluation that is there.

    Raises:
        UsageError: the folder holds an evaluation of another model or of other clips.
        SlrctlError: the folder cannot be written to.
    """
    keep_freed_memory()
    run = run or newest_run(runs_dir)
    loaded = load_with_layers(run, layers)
    settings, cache = loaded.settings, open_cache(loaded.settings.data)
    clips = (
        clips_of_run(loaded.run_dir, loaded.run, split, cache)
        if data is None
        else clips_of_file(data, settings, loaded.run.classes, split, cache)
    )
    about = {
        "run_dir": str(loaded.run_dir),
        "checkpoint": BEST if run == loaded.run_dir else run.name,
        "data": clips.name,
        "fingerprint": clips.dataset.fingerprint(),
    }
    folder = output or loaded.run_dir / f"evaluation-{clips.name}"
    if not force:
        _check_folder(folder, about)
    with deterministic():
        predictions = predict_dataset(loaded.run.model, clips.dataset, settings, loaded.device)
    evaluation = evaluate_predictions(
        predictions, resamples=settings.evaluate.resamples, seed=settings.seed
    )
    report = EvaluationReport(about, clips.notes, evaluation, folder)
    with writing_to(folder):
        # First, so that an incomplete folder says what it is about.
        write_json(folder / SUMMARY, report.to_json())
        write_predictions(predictions, folder / PREDICTIONS)
        write_csv(pd.DataFrame(evaluation.per_class), folder / PER_CLASS)
        draw_confusion(predictions, folder / CONFUSION, evaluation)
    return report


def _check_folder(folder: Path, about: dict[str, str]) -> None:
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
