"""Trials in real processes: finished once, resumed when killed, reported when they fail."""

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from slrctl.core.data.splits import load_splits
from slrctl.studies.ablation import running
from slrctl.studies.ablation.running import (
    TrialDone,
    TrialFailed,
    TrialStarted,
    estimate_seconds,
    run_trial,
    run_trials,
)
from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import read_result, standing
from slrctl.training.run import run_training

DIVERGING = {"train": {"learning_rate": 1e30, "clip_gradient": 0.0}}


@pytest.mark.slow
def test_trials_run_side_by_side_finish_once_and_are_not_repeated(plan, tmp_path):
    trials = plan()

    events = list(run_trials(trials, tmp_path / "trials", jobs=2, threads=1))
    finished, remaining = standing(trials, tmp_path / "trials")
    # A study that adds a seed has only that one to run.
    more = plan(seeds=[1, 2])

    assert [type(event) for event in events[:2]] == [TrialStarted, TrialStarted]
    assert {event.trial.key for event in events if isinstance(event, TrialDone)} == set(finished)
    assert remaining == []
    assert standing(more, tmp_path / "trials")[1] == more[2:]
    assert {result.split for result in finished.values()} == {"test"}
    assert {len(result.curve) for result in finished.values()} == {2}


@pytest.mark.slow
def test_a_trial_is_the_run_that_train_would_make(plan, tmp_path):
    trial = plan()[0]
    assert run_trial(trial, tmp_path / "trials", threads=1) is None
    list(run_training(trial.settings, load_splits(trial.settings), tmp_path / "run"))

    one, other = tmp_path / "trials" / trial.key, tmp_path / "run"
    predictions = [(folder / "predictions.parquet").read_bytes() for folder in (one, other)]
    assert predictions[0] == predictions[1]
    assert read_result(one)._replace(seconds=0) == read_result(other)._replace(seconds=0)


@pytest.mark.slow
def test_a_trial_that_diverges_is_reported_and_the_others_run(plan, tmp_path):
    trials = plan(Study("s", {"ill": DIVERGING, "well": {}}, "well"))

    events = list(run_trials(trials, tmp_path / "trials", jobs=1, threads=1))

    (failed,) = [event for event in events if isinstance(event, TrialFailed)]
    assert failed.trial.variant == "ill"
    assert "must be finite" in failed.message
    assert [event.trial.variant for event in events if isinstance(event, TrialDone)] == ["well"]


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_resumes_from_its_state(plan, tmp_path):
    long, short = ({"train": {"epochs": epochs}} for epochs in (40, 1))
    trials = plan(Study("s", {"narrow": long, "wide": short}, "wide"))
    events, killed = [], False
    for event in run_trials(trials, tmp_path / "trials", jobs=1, threads=1):
        events.append(event)
        if isinstance(event, TrialStarted) and not killed:
            killed = True
            _kill_children_once_one_writes(tmp_path / "trials" / event.trial.key)

    starts = [event.trial.variant for event in events if isinstance(event, TrialStarted)]
    assert starts == ["narrow", "narrow", "wide"]
    assert len([event for event in events if isinstance(event, TrialDone)]) == 2
    first = tmp_path / "trials" / trials[0].key
    assert "resumed" in json.loads((first / "environment.json").read_text())
    # The result is that of a trial that was never killed.
    assert run_trial(trials[0], tmp_path / "again", threads=1) is None
    again = read_result(tmp_path / "again" / trials[0].key)
    assert read_result(first)._replace(seconds=0) == again._replace(seconds=0)


def _kill_children_once_one_writes(run_dir):
    def kill():
        while not (run_dir / "last.safetensors").is_file():
            time.sleep(0.02)
        for child in multiprocessing.active_children():
            child.kill()

    threading.Thread(target=kill, daemon=True).start()


def die(trial, trials_dir, threads):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_trial_whose_process_is_always_killed_fails_in_the_end(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "run_trial", die)
    monkeypatch.setattr(running, "ATTEMPTS", 2)
    trial = plan()[0]

    *starts, failed = run_trials([trial], tmp_path, jobs=1, threads=1)

    assert starts == [TrialStarted(trial)] * 2
    assert isinstance(failed, TrialFailed)
    assert "exit code -9" in failed.message


def test_a_variant_that_diverges_is_timed_by_the_steps_it_took(plan, tiny_splits):
    trials = plan(Study("s", {"ill": DIVERGING}, None))

    assert (estimate_seconds(trials, tiny_splits, jobs=1, threads=1) or 0) > 0


@pytest.mark.parametrize(
    ("step_seconds", "expected"),
    # 2 variants of 2 epochs of 8 training and 4 validation clips, at 4 a batch.
    [([None, 0.5], 2 * 2 * (8 + 4 / 3) / 4 * 0.5), ([None, None], None)],
)
def test_the_most_demanding_variant_that_takes_a_step_is_timed(
    plan, tiny_splits, monkeypatch, step_seconds, expected
):
    cmcl = {**DIVERGING, "cmcl": {"preset": "balanced"}}
    trials = plan(Study("s", {"well": {}, "ill": cmcl}, None))
    timed, left = [], iter(step_seconds)

    def time_steps(settings, *_):
        timed.append(settings.cmcl.is_on)
        return next(left)

    monkeypatch.setattr(running, "_step_seconds", time_steps)

    assert estimate_seconds(trials, tiny_splits, jobs=1, threads=1) == pytest.approx(expected)
    assert timed == [True, False]
