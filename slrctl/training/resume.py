"""The state of a training in its run's folder: saved during the run, restored to resume it.

`last.safetensors` is the newest state and `previous.safetensors` the one before it. What else
the folder holds follows from the newest state: lines of later epochs are cut off, and a best model
that is not written yet is the state's own.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slrctl.core.data.batches import num_batches
from slrctl.core.data.splits import Splits
from slrctl.errors import DataError, SlrctlError
from slrctl.files import append_line, replacing
from slrctl.layers import Layer, resolve
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import (
    Checkpoint,
    checkpoint_bytes,
    is_intact,
    load_checkpoint,
    named_tensors,
    save_checkpoint,
)
from slrctl.settings import Settings
from slrctl.training.loop import EpochReport
from slrctl.training.state import Progress, TrainingState


def save_state(state: TrainingState, run_dir: Path) -> None:
    """Write the state; the newest one so far becomes the one before it.

    A state with a NaN or an infinity is left out: the next step stops the training, and what is
    there is the last good one.
    """
    tensors = state.tensors()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        return
    last = run_dir / run_folder.LAST
    content = checkpoint_bytes(tensors, state.settings, state.classes, asdict(state.progress))
    with replacing(last) as unfinished:
        unfinished.write_bytes(content)
        if last.exists():
            with replacing(run_dir / run_folder.PREVIOUS) as previous:
                try:
                    os.link(last, previous)
                except OSError:  # not every file system can
                    shutil.copyfile(last, previous)


def save_epoch(state: TrainingState, report: EpochReport, run_dir: Path) -> None:
    """Write the results of an epoch, in the order in which `bring_back_folder` can mend them."""
    append_line(run_dir / run_folder.METRICS, report.metrics)
    save_state(state, run_dir)
    if report.is_best:
        _save_best(state, run_dir)


def _save_best(state: TrainingState, run_dir: Path) -> None:
    save_checkpoint(
        run_dir / run_folder.BEST,
        named_tensors(model=state.model, loss=state.loss),
        state.settings,
        state.classes,
        {"epoch": state.progress.best_epoch},
    )


class SavedRun(NamedTuple):
    """A run read from its folder.

    `state` was read from `state_path`; both are None where the run was stopped before it wrote one.
    """

    run_dir: Path
    settings: Settings
    environment: dict[str, Any]
    state_path: Path | None
    state: Checkpoint | None
    progress: Progress
    is_finished: bool


def newest_interrupted(runs_dir: Path) -> Path:
    """Find the run that wrote last, of those not finished that nobody writes to.

    Raises:
        SlrctlError: there is none.
    """
    runs = [
        path.parent
        for path in runs_dir.glob(f"*/{run_folder.SETTINGS}")
        if not (path.parent / run_folder.SUMMARY).exists() and not run_folder.is_held(path.parent)
    ]
    if not runs:
        raise SlrctlError(
            f"{runs_dir}: no interrupted run in it; name one, as in slrctl train --resume RUN"
        )

    def written(run: Path) -> tuple[int, str]:
        state = run / run_folder.LAST
        newest = state if state.exists() else run / run_folder.SETTINGS
        return newest.stat().st_mtime_ns, str(run)

    return max(runs, key=written)


def find_saved_run(path: Path) -> SavedRun:
    """Read a run, named by its folder or by the file of one of its states.

    Raises:
        SlrctlError: it is no run, or another process is writing to it.
        DataError: what is needed of it is damaged.
    """
    run_dir = run_folder.folder_of(path)
    settings = resolve([Layer(f"run {run_dir}", run_folder.read_settings(run_dir))]).settings
    is_finished = (run_dir / run_folder.SUMMARY).exists()
    if run_folder.is_held(run_dir):
        raise SlrctlError(f"{run_dir}: another process is writing to this run; let it end first")
    states = [run_dir / name for name in (run_folder.LAST, run_folder.PREVIOUS)]
    states = [state for state in states if state.exists()] if path == run_dir else [path]
    state_path, state, progress = next(iter(states), None), None, Progress()
    if state_path is not None and not is_finished:
        state = _read_state(state_path)
        if "step" not in state.progress:
            raise DataError(
                f"{state_path}: holds a model and no state of a training; name the run's "
                f"{run_folder.LAST}"
            )
        try:
            progress = Progress.read(state.progress, settings.train.epochs)
        except ValueError:
            raise DataError(
                f"{state_path}: damaged (it does not tell where the training stands); train again "
                "with --force"
            ) from None
    environment = run_folder.read_environment(run_dir)
    return SavedRun(run_dir, settings, environment, state_path, state, progress, is_finished)


def _read_state(path: Path) -> Checkpoint:
    """Read a state; where it is damaged, say whether the other one of the run is whole."""
    try:
        return load_checkpoint(path)
    except DataError as error:
        others = (path.with_name(name) for name in (run_folder.LAST, run_folder.PREVIOUS))
        whole = [other for other in others if other != path and is_intact(other)]
        advice = (
            f"the other state of the run is whole: {run_folder.resume_command(whole[0])}"
            if whole
            else "the run has no other whole state; train again with --force"
        )
        raise DataError(f"{error}; {advice}") from None


def restore_state(saved: SavedRun, splits: Splits, device: torch.device) -> TrainingState:
    """Build the training of a run, and restore its state if there is one.

    Raises:
        DataError: the clips are not those the run was begun with, so that going on would be another
            training; or the state does not belong to this run.
    """
    before = run_folder.read_fingerprints(saved.run_dir)
    now = {name: split.fingerprint() for name, split in splits.by_name.items()}
    for name in before.keys() | now.keys():
        if before.get(name) != now.get(name):
            raise DataError(
                f"{saved.settings.data.train or 'demo set'}: the {name} clips are not those that "
                f"{saved.run_dir} was begun with (their fingerprint differs); put the file back, "
                "or train anew"
            )
    state = TrainingState.initial(saved.settings, splits.train.classes, device)
    if saved.state is None:
        return state
    path, step = saved.state_path, saved.progress.step
    if (saved.state.settings, saved.state.classes) != (state.settings, state.classes):
        raise DataError(
            f"{path}: was written under other settings or classes than {saved.run_dir} has now; "
            "put settings.toml back as it was, or train again with --force"
        )
    batches = num_batches(len(splits.train), saved.settings.train.batch_size)
    if step > batches:
        raise DataError(
            f"{path}: damaged (it stands after batch {step} of {batches}); train again with --force"
        )
    try:
        state.restore(saved.state.tensors, saved.state.progress)
    except ValueError as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: is not the state of such a training ({why}); go on with the version of "
            "slrctl it was written by (environment.json names it), or train again with --force"
        ) from None
    return state


def bring_back_folder(state: TrainingState, run_dir: Path) -> None:
    """Bring the run's folder, which nobody else writes to, to where a restored state stands.

    Raises:
        DataError: it lacks what the run wrote before that.
    """
    progress = state.progress
    run_folder.remove_unfinished(run_dir)
    _cut_metrics(run_dir / run_folder.METRICS, progress.epoch)
    if progress.best_epoch is None:
        return
    if progress.best_epoch == progress.epoch and progress.step == 0:
        _save_best(state, run_dir)  # the run may have been stopped just before that
    else:
        load_checkpoint(run_dir / run_folder.BEST)


def _cut_metrics(path: Path, epochs: int) -> None:
    """Keep the lines of the epochs before the state, and remove those after it."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no file any more; put it back as it was")
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = lines[:epochs]
    if [_epoch_of(line) for line in kept] != list(range(1, epochs + 1)):
        raise DataError(
            f"{path}: does not hold a line for each of the {epochs} epochs behind the run; put it "
            "back as it was, or train again with --force"
        )
    if len(lines) > epochs:
        with replacing(path) as unfinished:
            unfinished.write_bytes(b"".join(kept))


def _epoch_of(line: bytes) -> int | None:
    try:
        return json.loads(line)["epoch"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
