"""Trials in real processes: finished once, started again when killed, told of when they fail."""

import json
import multiprocessing
import threading
import time

import pytest

from slrctl.core import devices as runtime
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.splits import load_splits
from slrctl.errors import DataError, UsageError
from slrctl.layers import Layer
from slrctl.studies.ablation.study import BUILT_IN, Study
from slrctl.studies.ablation.trials import (
    Fold,
    TrialDone,
    TrialFailed,
    TrialStarted,
    plan_trials,
    read_result,
    standing,
)
from slrctl.studies.ablation.worker import run_locally
from slrctl.training.run import run_training

STUDY = Study(
    "s", {"narrow": {"model": {"ffn_dim": 8}}, "wide": {"model": {"ffn_dim": 16}}}, "wide"
)
NO_FOLDS = [Fold(None, {})]


@pytest.fixture
def below(tiny_settings, tiny_dataset, tmp_path):
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    values = tiny_settings.model_dump(include={"model", "train", "evaluate"})
    return [Layer("tiny", {**values, "data": {"train": str(path)}})]


def test_a_trials_key_is_its_content_and_not_its_name_or_place(below, tiny_dataset, tmp_path):
    elsewhere = tmp_path / "moved.parquet"
    write_parquet(tiny_dataset, elsewhere)
    renamed = Study("other", {"n": STUDY.variants["narrow"], "w": STUDY.variants["wide"]}, "w")
    moved = [*below, Layer("moved", {"data": {"train": str(elsewhere)}})]

    here = plan_trials(STUDY, [1, 2], NO_FOLDS, below, [])
    there = plan_trials(renamed, [1, 2], NO_FOLDS, moved, [])

    assert [trial.key for trial in here] == [trial.key for trial in there]
    assert len({trial.key for trial in here}) == 4


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"train": {"epochs": 3}}, {"augment": {"mirror": 0.5}}]
)
def test_another_setting_is_another_trial(below, change):
    (one, _), (other, _) = (
        plan_trials(STUDY, [1], NO_FOLDS, [*below, *layers], [])
        for layers in ([], [Layer("change", change)])
    )

    # A seed in a layer is overruled by the study's own.
    assert (one.key == other.key) == ("seed" in change)


@pytest.mark.parametrize(("has_bf16", "taken"), [(True, "bf16"), (False, "fp32")])
def test_trials_that_may_run_anywhere_name_the_precision_taken_here(
    below, monkeypatch, has_bf16, taken
):
    monkeypatch.setattr(runtime, "processor", lambda: ("some", {"amx-bf16": has_bf16}))
    auto, named = (
        plan_trials(STUDY, [1], NO_FOLDS, [*below, Layer("p", {"train": {"precision": it}})], [])
        for it in ("auto", taken)
    )

    assert auto == named
    assert auto[0].settings.train.precision == taken


def test_trials_of_a_named_precision_are_planned_where_their_device_is_not(below):
    elsewhere = Layer("other machine", {"train": {"device": "cuda:99", "precision": "bf16"}})

    trials = plan_trials(STUDY, [1], NO_FOLDS, [*below, elsewhere], [])

    assert {trial.settings.train.device for trial in trials} == {"cuda:99"}


def test_changed_clips_are_another_trial(below, tiny_dataset, tmp_path):
    before = plan_trials(STUDY, [1], NO_FOLDS, below, [])
    write_parquet(tiny_dataset[:-1], tmp_path / "tiny.parquet")

    after = plan_trials(STUDY, [1], NO_FOLDS, below, [])

    assert before[0].key != after[0].key


def test_variants_that_come_out_the_same_are_refused(below):
    same = {"model": {"ffn_dim": 4}}
    twins = Study("s", {"narrow": same, "twin": same}, None)

    with pytest.raises(UsageError, match="'narrow' and 'twin' come out the same"):
        plan_trials(twins, [1], NO_FOLDS, below, [])


@pytest.mark.parametrize(
    ("study", "values"),
    [
        (STUDY, {"model": {"ffn_dim": 4}}),
        (BUILT_IN["cmcl"], {"cmcl": {"preset": "balanced"}}),
        (BUILT_IN["cmcl"], {"cmcl": {"lambda_consistency": 0.3}}),
        (Study("l", {"CE": {}, "kl": {"cmcl": {"lambda_consistency": 0.1}}}, "kl"),
         {"cmcl": {"preset": "off"}}),
    ],
)  # fmt: skip
def test_a_set_over_what_variants_differ_in_would_treat_the_control_and_is_refused(
    below, study, values
):
    with pytest.raises(UsageError, match="is what the variants of study"):
        plan_trials(study, [1], NO_FOLDS, below, [Layer("--set", values)])


@pytest.mark.slow
def test_trials_run_side_by_side_finish_once_and_are_not_repeated(below, tmp_path):
    trials = plan_trials(STUDY, [1], NO_FOLDS, below, [])

    events = list(run_locally(trials, tmp_path / "trials", jobs=2, threads=1))
    finished, remaining = standing(trials, tmp_path / "trials")
    # A study that adds a seed has only that one to run.
    more = plan_trials(STUDY, [1, 2], NO_FOLDS, below, [])

    assert [type(event) for event in events[:2]] == [TrialStarted, TrialStarted]
    assert {event.trial.key for event in events if isinstance(event, TrialDone)} == set(finished)
    assert remaining == []
    assert standing(more, tmp_path / "trials").remaining == more[2:]
    assert {result.part for result in finished.values()} == {"test"}
    assert all(len(result.curve) == 2 for result in finished.values())


@pytest.mark.slow
def test_a_trial_is_the_run_that_train_would_make(below, tmp_path):
    (trial, _) = plan_trials(STUDY, [1], NO_FOLDS, below, [])
    list(run_locally([trial], tmp_path / "trials", jobs=1, threads=1))
    list(run_training(trial.settings, load_splits(trial.settings), tmp_path / "run"))

    one, other = tmp_path / "trials" / trial.key, tmp_path / "run"
    predictions = [(folder / "predictions.parquet").read_bytes() for folder in (one, other)]
    assert predictions[0] == predictions[1]
    assert read_result(one)._replace(seconds=0) == read_result(other)._replace(seconds=0)


@pytest.mark.slow
def test_a_trial_that_diverges_is_told_of_and_the_others_go_on(below, tmp_path):
    diverging = {"train": {"learning_rate": 1e30, "clip_gradient": 0.0}}
    study = Study("s", {"well": STUDY.variants["wide"], "ill": diverging}, "ill")
    trials = plan_trials(study, [1], NO_FOLDS, below, [])

    events = list(run_locally(trials, tmp_path / "trials", jobs=1, threads=1))

    (failed,) = [event for event in events if isinstance(event, TrialFailed)]
    assert failed.trial.variant == "ill"
    assert "must be finite" in failed.message
    assert [event.trial.variant for event in events if isinstance(event, TrialDone)] == ["well"]


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_from_its_state(below, tmp_path):
    longer = [*below, Layer("longer", {"train": {"epochs": 60}})]
    trials = plan_trials(STUDY, [1], NO_FOLDS, longer, [])
    events, killed = [], False
    for event in run_locally(trials, tmp_path / "trials", jobs=1, threads=1):
        events.append(event)
        if isinstance(event, TrialStarted) and not killed:
            killed = True
            _kill_a_child_once_it_writes(tmp_path / "trials" / event.trial.key)

    starts = [event.trial.variant for event in events if isinstance(event, TrialStarted)]
    assert sorted(starts) == ["narrow", "narrow", "wide"]
    assert len([event for event in events if isinstance(event, TrialDone)]) == 2
    environments = [
        json.loads((tmp_path / "trials" / trial.key / "environment.json").read_text())
        for trial in trials
    ]
    assert sum("resumed" in environment for environment in environments) == 1
    # As one that was never killed.
    list(run_locally(trials, tmp_path / "again", jobs=2, threads=1))
    for trial in trials:
        one, other = (read_result(tmp_path / name / trial.key) for name in ("trials", "again"))
        assert one._replace(seconds=0) == other._replace(seconds=0)


def _kill_a_child_once_it_writes(run_dir):
    def kill():
        while not (run_dir / "last.safetensors").is_file():
            time.sleep(0.02)
        for child in multiprocessing.active_children():
            child.kill()

    threading.Thread(target=kill, daemon=True).start()


def test_a_damaged_trial_is_named(below, tmp_path):
    (trial, _) = plan_trials(STUDY, [1], NO_FOLDS, below, [])
    run_dir = tmp_path / "trials" / trial.key
    run_dir.mkdir(parents=True)
    (run_dir / "summary.json").write_text(json.dumps({"test": {}}))

    with pytest.raises(DataError, match="cannot be read as a finished trial"):
        standing([trial], tmp_path / "trials")
