"""Ask whether attention finds the lag between the hands, which is known of the demo set.

Run as `python benchmarks/lag.py [--seeds 3] [--epochs 12] [--jobs 1] [--trials DIR]
[--output FILE]`. Trains with cross-entropy alone, with `kl` and with `cycle` consistency (preset
balanced), as `slrctl ablate` does and in its kind of folder, so that an interrupted run goes on;
then looks at the test clips, whose signers no training saw, and writes a Markdown table.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from slrctl.core.data.splits import load_splits
from slrctl.core.data.synthetic import synthesise
from slrctl.files import replacing
from slrctl.layers import Layer
from slrctl.runs.load import load_run
from slrctl.studies.ablation.running import TrialFailed, run_trials
from slrctl.studies.ablation.study import BUILT_IN, Study
from slrctl.studies.ablation.trials import (
    Fold,
    Trial,
    code_digest,
    plan_trials,
    read_result,
    standing,
)
from slrctl.studies.attention.inspect import inspect_clips
from slrctl.studies.attention.known_lag import LagHits, count_hits, lag_shares, margin_95
from slrctl.studies.attention.measures import relative_entropy
from slrctl.studies.attention.record import FUSION

CPU = torch.device("cpu")
VARIANTS = ("CE", "kl", "cycle")
FIRST_SEED = 379
RESAMPLES = 10_000


class Looked(NamedTuple):
    """A trained model's attention on the test clips with a known lag, and its test accuracy.

    `entropy`: of left-to-right attention relative to uniform, a mean over heads and clips.
    """

    hits: list[LagHits]
    entropy: float
    accuracy: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Does attention find the lag between the hands?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trials", type=Path, default=Path("studies/trials"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/lag.md"))
    chosen = parser.parse_args()

    trials = train(chosen.seeds, chosen.epochs, chosen.jobs, chosen.trials)
    found = {
        name: [look(trial, chosen.trials) for trial in trials if trial.variant == name]
        for name in VARIANTS
    }
    text = "\n".join([*heading(trials), *table(found), "", *verdicts(found), ""])
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(chosen.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(text)


def train(num_seeds: int, epochs: int, jobs: int, trials_dir: Path) -> list[Trial]:
    """Run what has not finished yet."""
    forms = BUILT_IN["cmcl-forms"].variants
    study = Study("lag", {name: forms[name] for name in VARIANTS}, None)
    schedule = Layer("schedule", {"train": {"epochs": epochs}})
    seeds = range(FIRST_SEED, FIRST_SEED + num_seeds)
    trials = plan_trials(study, seeds, [Fold(None, {})], [schedule], [])
    _, remaining = standing(trials, trials_dir)
    print(f"{len(trials)} trainings, {len(remaining)} still to be run")
    for event in run_trials(remaining, trials_dir, jobs=jobs, threads=1):
        print(f"{type(event).__name__}: {event.trial.variant}, seed {event.trial.seed}", flush=True)
        if isinstance(event, TrialFailed):
            raise SystemExit(event.message)
    return trials


def look(trial: Trial, trials_dir: Path) -> Looked:
    """Compare the maps of every test clip in which both hands move with its lag."""
    run_dir = trials_dir / trial.key
    truth = synthesise().truth
    splits = load_splits(trial.settings)
    assert splits.test is not None  # the demo set has test signers
    hits, entropies = {}, []
    for seen in inspect_clips(load_run(run_dir), splits.test, trial.settings, CPU, {FUSION}):
        lag = truth[seen.clip.clip_id].lag
        if lag is not None:
            there = seen.fusion["left_to_right"]
            hits[seen.clip.clip_id] = count_hits(there, lag)
            entropies.append(relative_entropy(there).mean())
    return Looked(
        hits=[hits[clip_id] for clip_id in sorted(hits)],
        entropy=float(np.nanmean(entropies)),
        accuracy=read_result(run_dir).metrics["accuracy"],
    )


def heading(trials: Sequence[Trial]) -> list[str]:
    settings = trials[0].settings
    seeds = sorted({trial.seed for trial in trials})
    return [
        "# Does attention find the lag between the hands?",
        "",
        "In the demo set frame i of the left hand does what frame i + lag of the right hand does,",
        "where both hands move; the lag, -8 to 8 frames, is drawn anew for every clip. Counted are",
        "the frames of the test clips (signers that no training saw) in which both hands are",
        "present and the right hand is present in frame i + lag too. A frame is hit if its",
        "strongest left-to-right attention, heads averaged, lies within one frame of that.",
        "",
        f"`python benchmarks/lag.py --seeds {len(seeds)} --epochs {settings.train.epochs}`: seeds "
        f"{', '.join(map(str, seeds))}, {settings.train.precision}, one thread, best epoch by",
        f"validation; demo set {synthesise().dataset.fingerprint()[:12]}, code {code_digest()}.",
        "",
    ]


def table(found: Mapping[str, Sequence[Looked]]) -> list[str]:
    first = lag_shares(found[VARIANTS[0]][0].hits)
    rows = [
        "| what | frames hit | each seed | less the best shift (95 %) | entropy / uniform "
        "| test accuracy |",
        "|---|---|---|---|---|---|",
        f"| chance: any present frame | {percent(first.chance)} | | | 1 | |",
        f"| identity: the frame itself | {percent(first.identity)} | | | | |",
        f"| best constant shift, {first.shift:+d}, chosen on these frames | "
        f"{percent(first.constant)} | | | | |",
    ]
    for name, runs in found.items():
        shares = [lag_shares(run.hits).attention for run in runs]
        low, high = margin(runs)
        rows.append(
            f"| {name} | {percent(hit_share(runs))} | {', '.join(map(percent, shares))} | "
            f"{100 * low:+.1f} to {100 * high:+.1f} points | "
            f"{np.mean([run.entropy for run in runs]):.3f} | "
            f"{percent(np.mean([run.accuracy for run in runs]))} |"
        )
    clips = sum(one.frames > 0 for one in found[VARIANTS[0]][0].hits)
    return [*rows, "", f"{first.frames} frames of {clips} clips; the intervals resample clips."]


def verdicts(found: Mapping[str, Sequence[Looked]]) -> list[str]:
    """What the table shows, in words."""
    above = [name for name, runs in found.items() if margin(runs)[0] > 0]
    others = [name for name in found if name not in above]
    lines = []
    if above:
        lines.append(f"Above the best constant shift (interval wholly above 0): {listed(above)}.")
    if others:
        lines.append(f"Not shown to be above the best constant shift: {listed(others)}.")
    chance = lag_shares(found[VARIANTS[0]][0].hits).chance
    blind = [name for name in others if hit_share(found[name]) <= chance]
    if blind:
        lines.append(f"No better than a frame drawn at random: {listed(blind)}.")
    return lines


def hit_share(runs: Sequence[Looked]) -> float:
    return float(np.mean([lag_shares(run.hits).attention for run in runs]))


def listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def margin(runs: Sequence[Looked]) -> tuple[float, float]:
    return margin_95([run.hits for run in runs], resamples=RESAMPLES, seed=0)


def percent(share: float | np.floating) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
