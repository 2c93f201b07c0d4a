"""Find a run that was interrupted, and make sure that it can go on."""

from pathlib import Path
from typing import Any, NamedTuple

from slrctl.core.data.parts import named_parts
from slrctl.core.data.splits import Parts
from slrctl.engine import run_folder
from slrctl.engine.run_lock import is_held
from slrctl.engine.saved_state import read_state
from slrctl.engine.state import Progress
from slrctl.errors import DataError, SlrctlError
from slrctl.layers import Layer, resolve
from slrctl.settings import Settings


class SavedRun(NamedTuple):
    """A run as it lies in its folder.

    `state_path` is the state to go on from, None where the run was stopped before it wrote one;
    `epoch` and `batch` count what lies behind that state.
    """

    run_dir: Path
    settings: Settings
    environment: dict[str, Any]
    state_path: Path | None
    epoch: int
    batch: int
    is_finished: bool


def newest_interrupted(runs_dir: Path) -> Path:
    """The run that wrote last, of those that have not finished and that nobody writes to.

    Raises:
        SlrctlError: there is none.
    """
    runs = [
        path.parent
        for path in runs_dir.glob(f"*/{run_folder.SETTINGS}")
        if not (path.parent / run_folder.SUMMARY).exists() and not is_held(path.parent)
    ]
    if not runs:
        raise SlrctlError(
            f"{runs_dir}: no interrupted run in it; name one, as in slrctl train --resume RUN"
        )
    return max(runs, key=lambda run: (_written_ns(run), str(run)))


def find_saved_run(path: Path) -> SavedRun:
    """Look up a run by its folder, or by the file of one of its states.

    Raises:
        SlrctlError: it is no run, or another process is writing to it.
        DataError: what is needed of it is damaged.
    """
    run_dir = run_folder.folder_of(path)
    settings = resolve([Layer(f"run {run_dir}", run_folder.read_settings(run_dir))]).settings
    is_finished = (run_dir / run_folder.SUMMARY).exists()
    if is_held(run_dir):
        raise SlrctlError(f"{run_dir}: another process is writing to this run; let it end first")
    state_path = path if path != run_dir else _newest_state(run_dir)
    epoch = batch = 0
    if state_path is not None and not is_finished:
        progress = read_state(state_path).progress
        if "step" not in progress:
            raise DataError(
                f"{state_path}: holds a model and no state of a training; name the run's "
                f"{run_folder.LAST}"
            )
        try:
            position = Progress.read(progress, settings.train.epochs)
        except ValueError:
            raise DataError(
                f"{state_path}: damaged (it does not tell where the training stands); train again "
                "with --force"
            ) from None
        epoch, batch = position.epoch, position.step
    environment = run_folder.read_environment(run_dir)
    return SavedRun(run_dir, settings, environment, state_path, epoch, batch, is_finished)


def check_same_clips(saved: SavedRun, parts: Parts) -> None:
    """Make sure that the clips are those the run was begun with.

    Raises:
        DataError: they are not, so that going on would be another training.
    """
    before = run_folder.read_fingerprints(saved.run_dir)
    now = {name: part.fingerprint() for name, part in named_parts(parts).items()}
    for name in before.keys() | now.keys():
        if before.get(name) != now.get(name):
            raise DataError(
                f"{saved.settings.data.train or 'demo set'}: the {name} clips are not those that "
                f"{saved.run_dir} was begun with (their fingerprint differs); put the file back, "
                "or train anew"
            )


def _newest_state(run_dir: Path) -> Path | None:
    states = [run_dir / name for name in (run_folder.LAST, run_folder.PREVIOUS)]
    return next((state for state in states if state.exists()), None)


def _written_ns(run_dir: Path) -> int:
    files = [run_dir / name for name in (run_folder.LAST, run_folder.SETTINGS)]
    return max(file.stat().st_mtime_ns for file in files if file.exists())
