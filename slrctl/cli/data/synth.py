"""`slrctl data synth`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.data.options import Force
from slrctl.cli.options import Json, command
from slrctl.errors import SlrctlError, UsageError

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.core.data.synthetic import SyntheticSet


@command()
def synth(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write: .parquet (ours) or .csv (SPOTER).")
    ],
    num_glosses: Annotated[
        int, typer.Option("--glosses", help="Signs, the first of one fixed list of 200.")
    ] = 24,
    num_train_signers: Annotated[
        int, typer.Option("--train-signers", help="People in the part for training.")
    ] = 5,
    num_val_signers: Annotated[
        int, typer.Option("--val-signers", help="Other people, for validation.")
    ] = 1,
    num_test_signers: Annotated[
        int, typer.Option("--test-signers", help="Other people again, for the test.")
    ] = 2,
    repetitions: Annotated[
        int, typer.Option("--repetitions", help="Clips of each sign by each signer.")
    ] = 6,
    num_sessions: Annotated[
        int, typer.Option("--sessions", help="Recording days of each signer.")
    ] = 2,
    min_frames: Annotated[int, typer.Option("--min-frames", help="Shortest clip.")] = 20,
    max_frames: Annotated[int, typer.Option("--max-frames", help="Longest clip.")] = 60,
    max_lag: Annotated[
        int, typer.Option("--max-lag", help="Largest lag between two moving hands, in frames.")
    ] = 8,
    jitter: Annotated[
        float, typer.Option("--jitter", help="Noise of a landmark, in shoulder distances.")
    ] = 0.012,
    hand_dropout: Annotated[
        float, typer.Option("--hand-dropout", help="Probability that a gap in a hand begins.")
    ] = 0.03,
    landmark_dropout: Annotated[
        float, typer.Option("--landmark-dropout", help="Probability of losing a body landmark.")
    ] = 0.005,
    num_clips: Annotated[
        int | None,
        typer.Option("--clips", help="Keep so many clips only, spread over the glosses."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another number, other people.")] = 0,
    truth_path: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="FILE", help="Also write what is true of each clip, as JSON."
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate synthetic signing whose truth is known, and save it.

    Without options it is the demo set that training uses where no data is given.
    """
    with report_errors():
        from slrctl.core.data.synthetic import SynthesisParameters, synthesise
        from slrctl.core.data.writers import check_output, write_clips
        from slrctl.errors import count_of

        check_output(output, force=force)
        if truth_path is not None and truth_path.exists() and not force:
            raise UsageError(f"{truth_path}: is there already; pass --force, or choose another")
        parameters = SynthesisParameters(
            num_glosses=num_glosses,
            num_train_signers=num_train_signers,
            num_val_signers=num_val_signers,
            num_test_signers=num_test_signers,
            repetitions=repetitions,
            num_sessions=num_sessions,
            min_frames=min_frames,
            max_frames=max_frames,
            max_lag=max_lag,
            jitter=jitter,
            hand_dropout=hand_dropout,
            landmark_dropout=landmark_dropout,
        )
        made = synthesise(parameters, seed)
        clips = list(made.dataset)
        if num_clips is not None:
            clips = _some(clips, num_clips, seed)
        notes = write_clips(clips, output)
        if truth_path is not None:
            _write_truth(made, clips, truth_path)
        parts = Counter(clip.split or "" for clip in clips)
        counts = ", ".join(f"{count:,} {part}" for part, count in parts.items())
        line = f"{count_of(len(clips), 'clip')} ({counts}) written to {output}"
        print_lines(console_for(as_json=as_json), [*notes, line])
        if as_json:
            facts = {"output": str(output), "seed": seed, "parameters": asdict(parameters)}
            print_json({**facts, **_counts(clips), "notes": notes})


def _some(clips: "list[Clip]", count: int, seed: int) -> "list[Clip]":
    from slrctl.core.data.selection import spread_over_glosses

    if not 1 <= count <= len(clips):
        raise UsageError(
            f"--clips {count}: must be from 1 to {len(clips)}, what the other numbers make; raise "
            "--repetitions or the numbers of signers for more"
        )
    return spread_over_glosses(clips, count, seed)


def _write_truth(made: "SyntheticSet", clips: "list[Clip]", path: Path) -> None:
    from slrctl.files import write_json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {clip.clip_id: asdict(made.truth[clip.clip_id]) for clip in clips})
    except OSError as error:
        raise SlrctlError(f"{path}: cannot be written ({error.strerror})") from None


def _counts(clips: "list[Clip]") -> dict[str, Any]:
    return {
        "clips": len(clips),
        "frames": sum(clip.num_frames for clip in clips),
        "glosses": len({clip.gloss for clip in clips}),
        "signers": len({clip.signer for clip in clips}),
        "splits": dict(Counter(clip.split for clip in clips if clip.split)),
    }
