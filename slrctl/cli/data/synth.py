"""`slrctl data synth`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import count_of


@opt.command()
def synth(
    ctx: typer.Context,
    output: opt.OutputClips,
    num_glosses: Annotated[
        int, opt.option("Signs, the first of one fixed list of 200.", None, "--glosses")
    ] = 24,
    num_train_signers: Annotated[
        int, opt.option("People in the train split.", None, "--train-signers")
    ] = 5,
    num_val_signers: Annotated[
        int, opt.option("Other people, for validation.", None, "--val-signers")
    ] = 1,
    num_test_signers: Annotated[
        int, opt.option("Other people again, for the test.", None, "--test-signers")
    ] = 2,
    repetitions: Annotated[
        int, opt.option("Clips of each sign by each signer.", None, "--repetitions")
    ] = 6,
    num_sessions: Annotated[
        int, opt.option("Recording days of each signer.", None, "--sessions")
    ] = 2,
    min_frames: Annotated[int, opt.option("Shortest clip.", None, "--min-frames")] = 20,
    max_frames: Annotated[int, opt.option("Longest clip.", None, "--max-frames")] = 60,
    max_lag: Annotated[
        int, opt.option("Largest lag between two moving hands, in frames.", None, "--max-lag")
    ] = 8,
    jitter: Annotated[
        float, opt.option("Noise of a landmark, in shoulder distances.", None, "--jitter")
    ] = 0.012,
    hand_dropout: Annotated[
        float, opt.option("Probability that a gap in a hand begins.", None, "--hand-dropout")
    ] = 0.03,
    landmark_dropout: Annotated[
        float, opt.option("Probability of losing a body landmark.", None, "--landmark-dropout")
    ] = 0.005,
    num_clips: Annotated[
        int | None, opt.option("Keep so many clips only, spread over the glosses.", None, "--clips")
    ] = None,
    seed: Annotated[int, opt.option("Another number, other people.", None, "--seed")] = 0,
    truth_path: Annotated[
        Path | None,
        opt.option(
            "Also write what is true of each clip, as JSON.", None, "--truth", metavar="FILE"
        ),
    ] = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Generate synthetic signing whose truth is known, and save it.

    Without options it is the demo set that training uses where no data is given.
    """
    from slrctl.core.data.conversion import write_synthetic

    others = ("output", "num_clips", "seed", "truth_path", "force", "as_json")
    parameters = {name: value for name, value in ctx.params.items() if name not in others}
    written = write_synthetic(
        output, parameters, seed, num_clips=num_clips, truth_path=truth_path, force=force
    )
    clips = written.clips
    splits = Counter(clip.split for clip in clips if clip.split)
    counts = ", ".join(f"{count:,} {split}" for split, count in splits.items())
    line = f"{count_of(len(clips), 'clip')} ({counts}) written to {output}"
    display = Display(as_json=as_json)
    display.lines(*written.notes, line)
    display.json(
        {
            "output": str(output),
            "seed": seed,
            "parameters": written.parameters,
            "clips": len(clips),
            "frames": sum(clip.num_frames for clip in clips),
            "glosses": len({clip.gloss for clip in clips}),
            "signers": len({clip.signer for clip in clips}),
            "splits": dict(splits),
            "notes": written.notes,
        }
    )
