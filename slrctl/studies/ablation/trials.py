"""One training of one variant under one seed: what it is, where it lies, what it gave."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import slrctl
from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.synthetic import synthesise
from slrctl.core.devices import choose_device, settled
from slrctl.errors import DataError, UsageError
from slrctl.layers import CMCL_PRESETS, Layer, flatten, resolve
from slrctl.runs import folder as run_folder
from slrctl.settings import DataSettings, Settings
from slrctl.studies.ablation.study import Study, variant_layer

_PATHS = ("train", "val", "test")
# Where clips are kept changes none of their bits.
_WITHOUT_EFFECT = (*_PATHS, "cache", "cache_dir", "cache_gigabytes")
# What decides a trial's numbers: everything but commands, studies and reports.
_COMPUTES = ("core", "training", "evaluation", "runs", "settings.py")


@dataclass(frozen=True)
class Trial:
    """A variant under a seed, on a fold of the data if there are folds.

    `key` is a hash of all that decides the trial's numbers: settings, data, code. Two trials with
    one key are the same, whatever study they belong to.
    """

    variant: str
    seed: int
    fold: str | None
    settings: Settings
    key: str


class TrialResult(NamedTuple):
    """What a finished trial gave.

    `metrics` are those of the test clips, or of the validation clips where there are none (`part`
    says which); `curve` is the validation accuracy after every epoch; `seconds` is the time spent
    in training steps.
    """

    part: str
    metrics: Mapping[str, float]
    clips: int
    best_epoch: int
    curve: tuple[float, ...]
    seconds: float


class Fold(NamedTuple):
    """A way of cutting the data into parts, as settings."""

    name: str | None
    values: Mapping[str, Any]


def plan_trials(
    study: Study,
    seeds: Sequence[int],
    folds: Sequence[Fold],
    below: Sequence[Layer],
    above: Sequence[Layer],
) -> list[Trial]:
    """Every trial of a study, seed by seed, so that an unfinished study has whole pairs.

    Args:
        study: its variants lie between the layers.
        seeds: paired over the variants.
        folds: at least one; `Fold(None, {})` for the data as they are.
        below: layers under a variant: the study's schedule, `--config`, the preset.
        above: layers over it: `--set` and named flags.

    Raises:
        UsageError: a setting is wrong, a layer above sets what the variants differ in, or two
            variants come out the same.
    """
    _check_untreated(study, above)
    trials = []
    sources: dict[str, str] | None = None
    for seed in seeds:
        for fold in folds:
            for name in study.variants:
                layers = [*below, variant_layer(study, name), *above]
                layers += [Layer("seed", {"seed": seed}), Layer("fold", fold.values)]
                settings = resolve(layers).settings
                if settings.train.precision == "auto":  # else nothing asks for the device here
                    settings = settled(settings, choose_device(settings.train.device))
                sources = sources or source_fingerprints(settings.data)
                key = trial_key(settings, sources)
                trials.append(Trial(name, seed, fold.name, settings, key))
    _check_distinct(trials[: len(study.variants)])
    return trials


def _check_untreated(study: Study, above: Sequence[Layer]) -> None:
    """A layer over all variants must not set what they differ in: it would treat the control."""
    differing = {key for tree in study.variants.values() for key in _keys(tree)}
    for layer in above:
        if treated := _keys(layer.values) & differing:
            named = sorted(treated & set(flatten(layer.values))) or ["cmcl.preset"]
            raise UsageError(
                f"{layer.origin}: {named[0]} is what the variants of study {study.name!r} differ "
                f"in, and would be laid over all of them, the baseline {study.baseline!r} too; "
                "write the variants you want, baseline first, in a TOML file for --study"
            )


def _keys(tree: Mapping[str, Any]) -> set[str]:
    """The settings that a tree decides, those of a preset among them."""
    keys = set(flatten(tree))
    if "cmcl.preset" in keys:
        keys |= {f"cmcl.{name}" for name in CMCL_PRESETS["off"]}
    return keys


def _check_distinct(trials: Sequence[Trial]) -> None:
    names: dict[str, str] = {}
    for trial in trials:
        if trial.key in names:
            raise UsageError(
                f"variants {names[trial.key]!r} and {trial.variant!r} come out the same; "
                "leave one of them out, or change its settings"
            )
        names[trial.key] = trial.variant


def trial_key(settings: Settings, sources: Mapping[str, str]) -> str:
    """A hash of everything that decides a trial's numbers; paths are replaced by contents."""
    values = settings.model_dump(mode="json")
    for name in _WITHOUT_EFFECT:
        values["data"].pop(name)
    values["train"].pop("save_seconds")
    content = {"settings": values, "data": sources, "code": code_digest()}
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def kept_clips(data: DataSettings) -> ClipCache | None:
    """The cache the settings name; None where it is off or has no folder."""
    if not data.cache or data.cache_dir is None:
        return None
    return ClipCache(data.cache_dir, data.cache_gigabytes)


def source_fingerprints(data: DataSettings) -> dict[str, str]:
    """The fingerprint of each file the settings name; that of the demo set if they name none."""
    if data.train is None:
        return {"demo": synthesise().dataset.fingerprint()}
    named = {name: getattr(data, name) for name in _PATHS}
    return {
        name: load_dataset(path, data, cache=kept_clips(data)).fingerprint()
        for name, path in named.items()
        if path is not None
    }


def code_digest() -> str:
    """A hash of the modules that compute: a trial of other code is another trial."""
    root = Path(slrctl.__file__).parent
    digest = hashlib.blake2b(digest_size=12)
    for name in _COMPUTES:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def is_finished(run_dir: Path) -> bool:
    """Whether a trial ran to its end; its summary is written last and whole."""
    return (run_dir / run_folder.SUMMARY).is_file()


def read_result(run_dir: Path) -> TrialResult:
    """Read what a finished trial gave.

    Raises:
        DataError: the folder holds something else.
    """
    try:
        summary = run_folder.read_summary(run_dir)
        epochs = run_folder.read_metrics(run_dir)
        if len(epochs) != summary["epochs"]:
            raise DataError(f"{len(epochs)} epochs")
        part = "test" if "test" in summary else "validation"
        metrics = summary[part]
        return TrialResult(
            part,
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


METRICS = ("accuracy", "macro_accuracy", "top5_accuracy", "macro_f1", "nll", "ece")


class TrialStarted(NamedTuple):
    """A trial began, for the first time or once more."""

    trial: Trial


class TrialDone(NamedTuple):
    """A trial is finished; its folder holds everything."""

    trial: Trial


class TrialFailed(NamedTuple):
    """A trial could not be finished; `message` says why, in one line."""

    trial: Trial
    message: str


TrialEvent = TrialStarted | TrialDone | TrialFailed


class Standing(NamedTuple):
    """The trials of a study: those that have finished, and those still to be run, each once."""

    finished: dict[str, TrialResult]
    remaining: list[Trial]


def standing(trials: Sequence[Trial], trials_dir: Path) -> Standing:
    """Look up which trials have finished, whatever study they were run for."""
    finished: dict[str, TrialResult] = {}
    remaining: dict[str, Trial] = {}
    for trial in trials:
        if trial.key in finished:
            continue
        if is_finished(trials_dir / trial.key):
            finished[trial.key] = read_result(trials_dir / trial.key)
        else:
            remaining.setdefault(trial.key, trial)
    return Standing(finished, list(remaining.values()))
