"""Predict the clips of a file, one at a time, with the best model of a run.

Run as `python examples/predict.py RUN CLIPS`.
"""

import sys

import torch

from slrctl import clip_batch, load_dataset, load_run


def main(run_dir: str, clips_path: str) -> None:
    run = load_run(run_dir)
    dataset = load_dataset(clips_path, run.settings.data, classes=run.classes)
    for clip in dataset:
        batch = clip_batch([clip], run.classes, run.settings)
        with torch.no_grad():
            probabilities = run.model(batch).logits.softmax(-1)[0]
        label = int(probabilities.argmax())
        sys.stdout.write(
            f"{clip.clip_id}: {run.classes[label]} ({probabilities[label]:.0%}), was {clip.gloss}\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:3])
