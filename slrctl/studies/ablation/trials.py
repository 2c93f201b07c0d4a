"""Trials of a study: each is one training of one variant under one seed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import slrctl
from slrctl.core.data.cache import open_cache
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.splits import load_splits
from slrctl.core.data.synthetic import synthesise
from slrctl.core.devices import choose_device, resolve_precision
from slrctl.errors import DataError, UsageError
from slrctl.files import user_cache_folder
from slrctl.layers import Layer, Tree, flatten, resolve
from slrctl.runs import folder as run_folder
from slrctl.settings import DataSettings, Settings, merge
from slrctl.studies.ablation.study import BUILT_IN, Study, decided

METRICS = ("accuracy", "macro_accuracy", "top5_accuracy", "macro_f1", "nll", "ece")
_PATHS = ("train", "val", "test")
# Settings of `data` that change no number: contents replace the paths.
_WITHOUT_EFFECT = (*_PATHS, "cache", "cache_dir", "cache_gigabytes")
# The code that decides a trial's numbers: not commands, studies and reports.
_COMPUTES = ("core", "training", "evaluation", "runs", "settings.py")


@dataclass(frozen=True)
class Trial:
    """A variant under a seed; `fold` is the signer that tests, None if the splits stay as they are.

    `key` is a hash of all that decides the trial's numbers: settings, data, code. Trials with one
    key are the same, whatever study they belong to.
    """

    variant: str
    seed: int
    fold: str | None
    settings: Settings
    key: str


class TrialResult(NamedTuple):
    """Results of a finished trial.

    `metrics` are those of the test clips, or of the validation clips where there are none (`split`
    says which); `curve` is the validation accuracy after every epoch; `seconds` is the time spent
    in training steps.
    """

    split: str
    metrics: Mapping[str, float]
    clips: int
    best_epoch: int
    curve: tuple[float, ...]
    seconds: float


def plan_trials(
    study: Study,
    seeds: Sequence[int],
    folds: Sequence[str | None],
    below: Sequence[Layer],
    above: Sequence[Layer],
) -> list[Trial]:
    """List the trials of a study seed by seed, so that an unfinished study has whole pairs.

    Args:
        study: its variants lie between the layers.
        seeds: paired over the variants.
        folds: signers that test, each in turn; None leaves the splits as they are.
        below: layers under a variant: the study's schedule, `--config`, the preset.
        above: layers over it: `--set` and named flags.

    Raises:
        UsageError: a setting is wrong, a layer above sets what the variants differ in, or two
            variants come out the same.
    """
    _check_baseline_untreated(study, above)
    trials: list[Trial] = []
    sources: dict[str, str] | None = None
    for seed in seeds:
        for fold in folds:
            own = {"seed": seed} | ({"data": {"test_signers": (fold,)}} if fold is not None else {})
            for name, tree in study.variants.items():
                layers = [*below, Layer(f"variant {name}", tree), *above, Layer("trial", own)]
                settings = resolve(layers).settings
                if settings.train.precision == "auto":  # else the device may be absent here
                    settings = resolve_precision(settings, choose_device(settings.train.device))
                sources = sources or source_fingerprints(settings.data)
                trials.append(Trial(name, seed, fold, settings, trial_key(settings, sources)))
    names: dict[str, str] = {}
    for trial in trials[: len(study.variants)]:
        if (other := names.setdefault(trial.key, trial.variant)) != trial.variant:
            raise UsageError(
                f"variants {other!r} and {trial.variant!r} come out the same; "
                "leave one of them out, or change its settings"
            )
    return trials


class StudyPlan(NamedTuple):
    """A study with its trials and its folders.

    `given` are the settings laid over or under all variants alike, without where clips lie.
    """

    study: Study
    trials: list[Trial]
    given: Tree
    report_dir: Path
    trials_dir: Path


def plan_whole_study(
    study: Study,
    num_seeds: int,
    below: Sequence[Layer],
    above: Sequence[Layer],
    *,
    by_signer: bool,
    studies_dir: Path,
    output: Path | None = None,
    name_ending: str = "",
) -> StudyPlan:
    """Plan the trials of a study, and the folders of its report and of their runs.

    Args:
        study: as it is run.
        num_seeds: seeds, counted up from the one in the settings.
        below: layers under the variants; the first is the study's own schedule.
        above: layers over them.
        by_signer: leave one signer out, each in turn.
        studies_dir: holds all trials, and a folder for each report, named after study, data and
            `name_ending`; if not all is as built in, with a short hash of what differs, so that no
            report replaces that of another question.
        output: a folder of its own instead.
        name_ending: such as `-quick`.

    Raises:
        UsageError: as in `plan_trials`.
        DataError: the clips of fewer than two signers are to be folded by signer.
    """
    given = _without_places([*below[1:], *above])
    settings = resolve([*below, *above]).settings
    if settings.data.cache_dir is None:
        # Resolved once: a process elsewhere may have another home.
        below = [Layer("user's cache", {"data": {"cache_dir": user_cache_folder()}}), *below]
        settings = resolve([*below, *above]).settings
    folds = _signers(settings.data) if by_signer else [None]
    seeds = range(settings.seed, settings.seed + num_seeds)
    trials = plan_trials(study, seeds, folds, below, above)
    if output is not None:
        return StudyPlan(study, trials, given, output, output / "trials")
    first = trials[0].settings
    train = load_splits(first, open_cache(first.data)).train
    name = f"{study.name}-{train.name}{name_ending}"
    if given or BUILT_IN.get(study.name) != study:
        question = json.dumps([study.primary, study.variants, given], sort_keys=True, default=str)
        name += f"-{hashlib.blake2b(question.encode(), digest_size=3).hexdigest()}"
    return StudyPlan(study, trials, given, studies_dir / name, studies_dir / "trials")


def _without_places(layers: Sequence[Layer]) -> Tree:
    """Merge layers, without where clips lie and are kept."""
    given: dict[str, Any] = reduce(merge, (layer.values for layer in layers), {})
    data = {k: v for k, v in given.pop("data", {}).items() if k not in _WITHOUT_EFFECT}
    return {**given, "data": data} if data else given


def _signers(data: DataSettings) -> list[str]:
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
    return signers


def _check_baseline_untreated(study: Study, above: Sequence[Layer]) -> None:
    differing = {key for tree in study.variants.values() for key in decided(tree)}
    for layer in above:
        if treated := decided(layer.values).keys() & differing:
            named = sorted(treated & flatten(layer.values).keys()) or ["cmcl.preset"]
            raise UsageError(
                f"{layer.origin}: {named[0]} is what the variants of study {study.name!r} differ "
                f"in, and would be laid over all of them, the baseline {study.baseline!r} too; "
                "write the variants you want, baseline first, in a TOML file for --study"
            )


def trial_key(settings: Settings, sources: Mapping[str, str]) -> str:
    """Hash all that decides a trial's numbers; `sources` replace the paths of the data."""
    values = settings.model_dump(mode="json")
    for name in _WITHOUT_EFFECT:
        values["data"].pop(name)
    values["train"].pop("save_seconds")
    content = {"settings": values, "data": sources, "code": code_digest()}
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def source_fingerprints(data: DataSettings) -> dict[str, str]:
    """Fingerprint each file the settings name, or the demo set if they name none."""
    if data.train is None:
        return {"demo": synthesise().dataset.fingerprint()}
    named = {name: getattr(data, name) for name in _PATHS}
    return {
        name: load_dataset(path, data, cache=open_cache(data)).fingerprint()
        for name, path in named.items()
        if path is not None
    }


def code_digest() -> str:
    """Hash the modules that compute: a trial of other code is another trial."""
    root = Path(slrctl.__file__).parent
    digest = hashlib.blake2b(digest_size=12)
    for name in _COMPUTES:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def standing(
    trials: Sequence[Trial], trials_dir: Path
) -> tuple[dict[str, TrialResult], list[Trial]]:
    """Return the results of finished trials by key, and the trials still to be run, each once.

    A trial counts as finished whatever study it was run for.

    Raises:
        DataError: the folder of a finished trial is damaged.
    """
    by_key = {trial.key: trial for trial in trials}
    finished = {
        key: read_result(trials_dir / key) for key in by_key if is_finished(trials_dir / key)
    }
    return finished, [trial for key, trial in by_key.items() if key not in finished]


def is_finished(run_dir: Path) -> bool:
    """Return True once the trial has ended: its summary is written last."""
    return (run_dir / run_folder.SUMMARY).is_file()


def read_result(run_dir: Path) -> TrialResult:
    """Read the results of a finished trial.

    Raises:
        DataError: the folder is damaged.
    """
    try:
        summary = run_folder.read_summary(run_dir)
        epochs = run_folder.read_metrics(run_dir)
        if len(epochs) != summary["epochs"]:
            raise DataError(f"{len(epochs)} epochs")
        split = "test" if "test" in summary else "validation"
        metrics = summary[split]
        return TrialResult(
            split,
            {name: metrics[name] for name in METRICS},
            metrics["clips"],
            summary["best_epoch"],
            tuple(epoch["val_accuracy"] for epoch in epochs),
            sum(epoch["seconds"] for epoch in epochs),
        )
    except (DataError, KeyError, TypeError):
        raise DataError(
            f"{run_dir}: cannot be read as a finished trial; remove it and run the study again"
        ) from None
