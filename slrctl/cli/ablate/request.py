"""A study as the command line asks for it: its trials, its folders, and who runs them."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slrctl.errors import DataError, UsageError
from slrctl.files import user_cache_folder
from slrctl.layers import Layer, resolve
from slrctl.settings import merge

if TYPE_CHECKING:
    from slrctl.core.data.splits import Splits
    from slrctl.layers import Tree
    from slrctl.settings import Settings
    from slrctl.studies.ablation.study import Study
    from slrctl.studies.ablation.trials import Fold, Trial

STUDIES_DIR = Path("studies")
TRIALS = "trials"
_PLACES = ("train", "val", "test", "cache", "cache_dir", "cache_gigabytes")


class Place(NamedTuple):
    """Where a study is written: its report, and the runs of its trials."""

    report: Path
    trials: Path


class Workers(NamedTuple):
    """Who runs the trials.

    `jobs` is how many at a time; None for as many as a cluster has room for. `ray` is the address
    of a Ray cluster, None for processes of this machine.
    """

    jobs: int | None
    threads: int
    ray: str | None


class StudyRequest(NamedTuple):
    """What the options ask for.

    `given` are the settings laid over or under all variants alike, without where clips lie;
    `plan` is the difference in accuracy that the seeds needed are asked for.
    """

    study: "Study"
    trials: "list[Trial]"
    place: Place
    workers: Workers
    grids: tuple[str, ...]
    given: "Tree"
    plan: float | None


def plan_trials_of(
    study: "Study", num_seeds: int, folds: str | None, below: list[Layer], above: list[Layer]
) -> "list[Trial]":
    """Every trial of the study, under the settings below and above its variants."""
    from slrctl.studies.ablation.trials import Fold, plan_trials

    settings = resolve([*below, *above]).settings
    if settings.data.cache_dir is None:
        # Resolved once, for processes elsewhere may have another home.
        below = [Layer("user's cache", {"data": {"cache_dir": user_cache_folder()}}), *below]
        settings = resolve([*below, *above]).settings
    if folds not in (None, "signer"):
        raise UsageError(f"--folds {folds!r}: expected signer")
    cut = _signer_folds(settings) if folds else [Fold(None, {})]
    seeds = range(settings.seed, settings.seed + num_seeds)
    return plan_trials(study, seeds, cut, below, above)


def given_for_all(layers: list[Layer]) -> "Tree":
    """What these layers set, without where clips lie and are kept."""
    given: dict[str, Any] = {}
    for layer in layers:
        given = merge(given, layer.values)
    data = {name: value for name, value in given.get("data", {}).items() if name not in _PLACES}
    return {**given, "data": data} if data else {k: v for k, v in given.items() if k != "data"}


def study_place(
    study: "Study", trial: "Trial", given: "Tree", output: Path | None, *, kind: str = ""
) -> Place:
    """The folder asked for, else one named after the study and the data of its trials.

    What is not as the built-in study has it goes into the name as a short hash, so that one
    question's report does not replace another's.

    Args:
        study: as it is run.
        trial: one of its trials.
        given: the settings laid over all variants.
        output: the folder asked for.
        kind: put at the end of the name.
    """
    from slrctl.studies.ablation.study import BUILT_IN

    if output is not None:
        return Place(output, output / TRIALS)
    name = f"{study.name}-{splits_of(trial).train.name}{kind}"
    if given or BUILT_IN.get(study.name) != study:
        asked = [study.primary, study.variants, given]
        text = json.dumps(asked, sort_keys=True, default=str)
        name += f"-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"
    return Place(STUDIES_DIR / name, STUDIES_DIR / TRIALS)


def splits_of(trial: "Trial") -> "Splits":
    """The clips of a trial."""
    from slrctl.core.data.cache import open_cache
    from slrctl.core.data.splits import load_splits

    return load_splits(trial.settings, open_cache(trial.settings.data))


def choose_workers(jobs: int | None, threads: int, ray: str | None) -> Workers:
    """As many trials at a time as asked for, else as this machine or the cluster has room for."""
    from slrctl.studies.ablation.on_ray import LOCAL

    if jobs is None and ray in (None, LOCAL):
        jobs = _cores() // threads or 1
    return Workers(jobs, threads, ray)


def _cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signer_folds(settings: "Settings") -> "list[Fold]":
    """Every signer tests once, while all others train."""
    from slrctl.core.data.cache import open_cache
    from slrctl.core.data.dataset import load_dataset
    from slrctl.core.data.synthetic import synthesise
    from slrctl.studies.ablation.trials import Fold

    data = settings.data
    clips = (
        synthesise().dataset
        if data.train is None
        else load_dataset(data.train, data, cache=open_cache(data))
    )
    signers = sorted({clip.signer for clip in clips if clip.signer is not None})
    if len(signers) < 2:
        raise DataError(
            f"{clips.source}: {len(signers)} signers known, and --folds signer needs at least 2; "
            "fill in the signer column"
        )
    return [Fold(signer, {"data": {"test_signers": (signer,)}}) for signer in signers]
