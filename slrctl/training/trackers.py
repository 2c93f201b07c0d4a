"""Epochs in a tracker as well, through Accelerate; `metrics.jsonl` has them too.

Everything stays in the run's folder, under `tracking/`: nothing is sent anywhere.
"""

import importlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slrctl.errors import UsageError
from slrctl.layers import flatten
from slrctl.settings import Settings

FOLDER = "tracking"
Track = Callable[[dict[str, Any]], None]


def check_tracker(settings: Settings) -> None:
    """Make sure that the tracker of a run is installed.

    Raises:
        UsageError: it is not.
    """
    name = settings.train.tracker
    for package in ("accelerate", name):
        if name != "none" and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"train.tracker is {name!r}, which needs the package {package}; "
                f"pip install 'slrctl[{name}]', or set train.tracker=none"
            )


@contextmanager
def tracking(settings: Settings, run_dir: Path, *, is_new: bool) -> Iterator[Track]:
    """Yield a function that takes the lines of `metrics.jsonl`.

    Args:
        settings: of the run; they name the tracker, and are shown in it.
        run_dir: folder of the run.
        is_new: True if the run begins; an earlier one's records are then removed.
    """
    folder, name = run_dir / FOLDER, settings.train.tracker
    if is_new:
        shutil.rmtree(folder, ignore_errors=True)
    if name == "none":
        yield lambda metrics: None
        return
    folder.mkdir(exist_ok=True)
    tracker = _start(name, folder)
    if is_new:
        values = flatten(settings.model_dump(mode="json"))
        tracker.store_init_configuration({k: "" if v is None else v for k, v in values.items()})

    def track(metrics: dict[str, Any]) -> None:
        numbers = {k: float(v) for k, v in metrics.items() if v is not None and k != "epoch"}
        tracker.log(numbers, step=metrics["epoch"])

    try:
        yield track
    finally:
        tracker.finish()


def _start(name: str, folder: Path) -> Any:
    from accelerate import tracking as trackers
    from accelerate.state import PartialState

    PartialState()  # the trackers ask it which process they are in
    if name == "tensorboard":
        tracker = trackers.TensorBoardTracker("epochs", folder)
    elif name == "wandb":
        quiet = {"silent": True, "console": "off"}
        tracker = trackers.WandBTracker(
            "slrctl", name=folder.parent.name, dir=str(folder), mode="offline", settings=quiet
        )
    else:
        mlflow: Any = importlib.import_module("mlflow")
        place = folder.resolve()
        mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
        tracker = trackers.MLflowTracker("slrctl", place.as_uri(), run_name=folder.parent.name)
    tracker.start()
    return tracker
