"""Choose how to deal with mirrored signing, without a look at any test clip.

Run as `python benchmarks/mirror_selection.py RESULTS.jsonl [--clips CLIPS.parquet]`. With clips,
each session that is not a test session is held out in turn; without, the demo set's validation
signer is. Each option of `OPTIONS` is trained on the rest and asked about the held-out clips, as
they are and mirrored. The last epoch counts: nothing of the held-out clips chooses it. A line a
training is added to RESULTS.jsonl; a training that is in it already is not repeated.

The default sizes are smaller than a real training's, so that the table costs minutes: narrow
feed-forward layers and few epochs.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from slrctl.core.data.batches import (
    evaluation_batches,
    num_batches,
    training_micro_batches,
)
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.mirror import MIRRORED
from slrctl.core.data.splits import with_mirrored_copies
from slrctl.core.data.splitter import choose_stratified, split_name
from slrctl.core.data.synthetic import synthesise
from slrctl.core.devices import deterministic
from slrctl.evaluation.predictions import predict
from slrctl.layers import Layer, read_overrides, resolve
from slrctl.settings import Settings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.state import TrainingState

CPU = torch.device("cpu")
RIGHT = "prepare.dominant_hand=right"
DROP = "prepare.edge_hands=drop"
OPTIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "augment": ("augment.mirror=0.5",),
    "canonical": (RIGHT,),
    "both": (RIGHT, "augment.mirror=0.5"),
    "drop": (DROP,),
    "drop+augment": (DROP, "augment.mirror=0.5"),
    "drop+canonical": (DROP, RIGHT),
    "drop+both": (DROP, RIGHT, "augment.mirror=0.5"),
    "drop+both+0.2": (DROP, RIGHT, "augment.mirror=0.2"),
    "canonical+speed": (RIGHT, "augment.speed=1.25"),
    "canonical+hands lost": (RIGHT, "augment.hand_dropout=0.2"),
    "canonical+points lost": (RIGHT, "augment.frame_dropout=0.1", "augment.joint_dropout=0.1"),
    "canonical+geometry": (
        RIGHT,
        "augment.geometric=0.9",
        "augment.rotation_degrees=20",
        "augment.arm_degrees=12",
        "augment.arm_probability=0.5",
    ),
    "canonical+cmcl": (
        RIGHT,
        "cmcl.preset=balanced",
        "cmcl.lambda_consistency=0.1",
        "cmcl.lambda_alignment=0.05",
    ),
    "canonical+no cross": (RIGHT, "model.cross_attention=false"),
}
FIRST = ("none", "augment", "canonical", "both")


class Fold(NamedTuple):
    """A training: its clips, and the held-out ones it is evaluated on."""

    held_out: str
    train: SignDataset
    asked: SignDataset


def folds_of(clips_path: Path | None, train_on: str) -> Iterator[Fold]:
    """Leave one session out, of those without a test clip; or the demo set's validation signer.

    `train_on="one"` turns it round: train on one session and ask about all others, which is harder.
    """
    if clips_path is None:
        demo = synthesise().dataset
        train = demo.with_clips(clip for clip in demo if clip.split == "train")
        yield Fold("val1", train, demo.with_clips(clip for clip in demo if clip.split == "val"))
        return
    dataset = load_dataset(clips_path)
    tested = {clip.session for clip in dataset if split_name(clip.split) == "test"}
    open_clips = [clip for clip in dataset if clip.session not in tested]
    for session in sorted({clip.session or "" for clip in open_clips}):
        others = dataset.with_clips(clip for clip in open_clips if clip.session != session)
        one = dataset.with_clips(clip for clip in open_clips if clip.session == session)
        if train_on == "one":
            yield Fold(f"all but {session}", one, others)
        else:
            yield Fold(session, others, one)


def thinned(dataset: SignDataset, share: float, seed: int) -> SignDataset:
    """A share of the clips, gloss by gloss."""
    if share == 1:
        return dataset
    chosen = choose_stratified(dataset.clips, share, seed)
    return dataset.with_clips(clip for clip in dataset if clip.clip_id in chosen)


def train_and_ask(settings: Settings, fold: Fold) -> dict[str, Any]:
    """Accuracy on the held-out clips as recorded, mirrored, and by both forms together."""
    started = time.process_time()
    asked = with_mirrored_copies(fold.asked)
    watched = replace(asked, clips=asked[:8])  # the loop wants something to validate on
    data = TrainingData(
        training=lambda epoch, start: training_micro_batches(
            fold.train, settings, epoch, device=CPU, start=start
        ),
        num_batches=num_batches(len(fold.train), settings.train.batch_size),
        validation=lambda: evaluation_batches(watched, settings),
    )
    state = TrainingState.initial(settings, fold.train.classes, CPU)
    for _ in train_epochs(state, data):
        pass
    predictions = predict(state.model, asked, evaluation_batches(asked, settings), CPU)
    is_mirrored = np.array([clip_id.endswith(MIRRORED) for clip_id in predictions.clip_ids])
    is_right = predictions.predicted == predictions.target
    # A copy follows its clip, so both halves are in one order.
    scores = predictions.log_probabilities
    together = (scores[~is_mirrored] + scores[is_mirrored]).argmax(axis=1)
    return {
        "train_clips": len(fold.train),
        "clips": len(fold.asked),
        "as_signed": float(is_right[~is_mirrored].mean()),
        "mirrored": float(is_right[is_mirrored].mean()),
        "averaged": float((together == predictions.target[~is_mirrored]).mean()),
        "nll": float(-predictions.log_probability_of_truth.mean()),
        "cpu_seconds": time.process_time() - started,
    }


def done_already(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def show(rows: list[dict[str, Any]]) -> None:
    """Means over the folds, an option a line."""
    names = ("as_signed", "mirrored", "averaged", "nll")
    print(f"{'data':<8}{'option':<22}{'folds':>6}" + "".join(f"{name:>11}" for name in names))
    groups: dict[tuple[str, str, int, int, float], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["data"], row["option"], row["epochs"], row["ffn_dim"], row["share"])
        groups.setdefault(key, []).append(row)
    for (data, option, epochs, ffn_dim, share), folds in groups.items():
        means = "".join(f"{np.mean([fold[name] for fold in folds]):>11.4f}" for name in names)
        sizes = f"  {epochs} epochs, width {ffn_dim}, {share:g} of the clips"
        print(f"{data:<8}{option:<22}{len(folds):>6}{means}{sizes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--clips", type=Path, help="clips with sessions; the demo set if absent")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--ffn-dim", type=int, default=256)
    parser.add_argument("--share", type=float, default=1.0, help="of the training clips")
    parser.add_argument("--seed", type=int, default=379)
    parser.add_argument("--option", nargs="*", default=list(FIRST), choices=list(OPTIONS))
    parser.add_argument("--train-on", choices=("others", "one"), default="others")
    parser.add_argument("--held-out", nargs="*", help="only these folds; all if absent")
    given = parser.parse_args()

    torch.set_num_threads(1)
    rows = done_already(given.results)
    for fold in folds_of(given.clips, given.train_on):
        if given.held_out and fold.held_out not in given.held_out:
            continue
        fold = fold._replace(train=thinned(fold.train, given.share, given.seed))
        for option in given.option:
            key = {
                "data": "demo" if given.clips is None else given.clips.stem,
                "held_out": fold.held_out,
                "option": option,
                "settings": list(OPTIONS[option]),
                "epochs": given.epochs,
                "ffn_dim": given.ffn_dim,
                "share": given.share,
                "seed": given.seed,
            }
            if any(key.items() <= row.items() for row in rows):
                continue
            sizes = {
                "seed": given.seed,
                "model": {"ffn_dim": given.ffn_dim},
                "train": {"epochs": given.epochs},
            }
            layers = [Layer("sizes", sizes), *read_overrides(OPTIONS[option])]
            with deterministic():
                row = key | train_and_ask(resolve(layers).settings, fold)
            rows.append(row)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    show(rows)


if __name__ == "__main__":
    main()
