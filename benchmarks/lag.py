"""Ask whether attention finds the lag between the hands, which is known of the demo set.

Run as `python benchmarks/lag.py [--seeds 3] [--epochs 12] [--jobs 1] [--trials DIR]
[--output FILE]`. Trains with cross-entropy alone, with `kl` and with `cycle` consistency (preset
balanced), as `slrctl ablate` does and in its kind of folder, so that an interrupted run resumes;
then looks at the test clips, whose signers no training saw, and writes a Markdown table.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from slrctl.core.data.splits import load_splits
from slrctl.core.data.synthetic import synthesise
from slrctl.core.seeding import stable_seed
from slrctl.files import replacing
from slrctl.layers import Layer
from slrctl.runs.checkpoint import load_run
from slrctl.studies.ablation.running import TrialFailed, run_trials
from slrctl.studies.ablation.study import BUILT_IN, Study
from slrctl.studies.ablation.trials import (
    Trial,
    code_digest,
    plan_trials,
    read_result,
    standing,
)
from slrctl.studies.attention.inspect import inspect_clips
from slrctl.studies.attention.measures import relative_entropy
from slrctl.studies.attention.record import FUSION, AttentionMap

CPU = torch.device("cpu")
VARIANTS = ("CE", "kl", "cycle")
FIRST_SEED = 379
RESAMPLES = 10_000
TOLERANCE = 1
"""Frames between the strongest attention and the true counterpart that still count as a hit."""


class LagHits(NamedTuple):
    """A clip's counted frames, and how many of them are hit.

    `attention`: by the map. `chance`: to be expected from a frame of the right hand drawn at
    random. Neither is a whole number: frames that tie for the strongest share the hit.
    """

    lag: int
    frames: int
    attention: float
    chance: float


class LagShares(NamedTuple):
    """Shares of all counted frames that are hit, 0 to 1.

    `identity`: if every frame attended to itself; `constant`: if every frame of every clip attended
    to the one `shift` later, with the shift that hits most of these very frames.
    """

    frames: int
    attention: float
    chance: float
    identity: float
    constant: float
    shift: int


def count_hits(left_to_right: AttentionMap, lag: int) -> LagHits:
    """Count the frames of one clip in which its true counterpart could be attended to.

    Those are the frames with both hands present whose frame i + lag is in the clip, with the right
    hand present.

    Args:
        left_to_right: its heads are averaged.
        lag: the known one, in frames.
    """
    keys = np.flatnonzero(left_to_right.keys_count)
    rows = _countable(left_to_right.rows_count, left_to_right.keys_count, lag)
    if not len(rows):
        return LagHits(lag, 0, 0.0, 0.0)
    weights = left_to_right.mean[np.ix_(rows, keys)]
    is_near = np.abs(keys - (rows + lag)[:, None]) <= TOLERANCE
    is_strongest = weights == weights.max(axis=1, keepdims=True)
    attention = (is_near & is_strongest).sum(axis=1) / is_strongest.sum(axis=1)
    return LagHits(lag, len(rows), float(attention.sum()), float(is_near.mean(axis=1).sum()))


def _countable(left: Bool[np.ndarray, " T"], right: Bool[np.ndarray, " T"], lag: int) -> np.ndarray:
    rows = np.flatnonzero(left & right)
    rows = rows[(rows + lag >= 0) & (rows + lag < len(right))]
    return rows[right[rows + lag]]


def lag_shares(hits: Sequence[LagHits]) -> LagShares:
    """Put clips together, every frame counting alike.

    Raises:
        ValueError: there is no frame to count.
    """
    frames = sum(one.frames for one in hits)
    if not frames:
        raise ValueError("hits: no clip has a frame whose true counterpart is present")
    shift = best_shift(hits)
    return LagShares(
        frames=frames,
        attention=sum(one.attention for one in hits) / frames,
        chance=sum(one.chance for one in hits) / frames,
        identity=_hit_by(hits, 0).sum() / frames,
        constant=_hit_by(hits, shift).sum() / frames,
        shift=shift,
    )


def best_shift(hits: Sequence[LagHits]) -> int:
    """Return the shift that hits most frames if all clips have it; the smallest of several."""
    largest = max(abs(one.lag) for one in hits)
    shifts = sorted(range(-largest, largest + 1), key=abs)
    return max(shifts, key=lambda shift: int(_hit_by(hits, shift).sum()))


def margin_95(
    runs: Sequence[Sequence[LagHits]], *, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the middle 95 % of the share hit by attention minus that by the best shift.

    Clips are resampled, each with all its runs; the shift stays that of all clips.

    Args:
        runs: for each training, the clips in one order.
        resamples: how many.
        seed: of the resampling.
    """
    hits = runs[0]
    frames = np.array([one.frames for one in hits], np.float64)
    constant = _hit_by(hits, best_shift(hits))
    attention = np.mean([[one.attention for one in run] for run in runs], axis=0)
    generator = np.random.default_rng(stable_seed(seed, "known lag"))
    drawn = generator.integers(len(hits), size=(resamples, len(hits)))
    margins = (attention - constant)[drawn].sum(axis=1) / frames[drawn].sum(axis=1)
    low, high = np.quantile(margins, [0.025, 0.975])
    return float(low), float(high)


def _hit_by(hits: Sequence[LagHits], shift: int) -> Float[np.ndarray, " N"]:
    """Return the counted frames of each clip that one shift hits: all of them, or none."""
    return np.array([one.frames * (abs(shift - one.lag) <= TOLERANCE) for one in hits], np.float64)


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
    trials = plan_trials(study, seeds, [None], [schedule], [])
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
            found = seen.fusion["left_to_right"]
            hits[seen.clip.clip_id] = count_hits(found, lag)
            entropies.append(relative_entropy(found).mean())
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
    """Explain the table in words."""
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
