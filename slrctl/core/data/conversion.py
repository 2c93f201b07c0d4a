"""Files of clips made of other files: converted, divided anew, or synthetic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.readers.parquet import other_columns, recognises
from slrctl.core.data.selection import Sources, read_sources, spread_over_glosses
from slrctl.core.data.splitter import (
    SplitCounts,
    Unit,
    count_splits,
    split_clips,
    split_warnings,
)
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.data.writers import check_output, write_clips
from slrctl.errors import SlrctlError, UsageError
from slrctl.files import write_json
from slrctl.settings import DataSettings


def convert_files(
    sources: Sequence[Path],
    output: Path,
    settings: DataSettings,
    splits: Sequence[str] = (),
    *,
    force: bool,
) -> Sources:
    """Write the clips of some files into one; the notes say also what it could not hold.

    Raises:
        UsageError: the output is one of the sources, is there already, or has no known suffix.
        DataError, SlrctlError: as in `read_sources` and `write_clips`.
    """
    for source in sources:
        if source.exists() and output.exists() and source.samefile(output):
            raise UsageError(f"{output}: is the source itself; choose another name")
    check_output(output, force=force)
    read = read_sources(sources, settings, splits)
    return read._replace(notes=[*read.notes, *write_clips(read.clips, output)])


class FileSplit(NamedTuple):
    """The file that was written, the clips of each split in it, and notes for the user."""

    output: Path
    counts: dict[str, SplitCounts]
    notes: list[str]


def split_file(
    path: Path,
    output: Path | None,
    settings: DataSettings,
    by: Unit | Literal["random"] | None,
    *,
    shares: Mapping[str, float],
    seed: int,
    unit: Unit,
    named: Mapping[str, Sequence[str]],
    force: bool,
) -> FileSplit:
    """Divide the clips of a file and write them with their split column.

    Args:
        path: the file.
        output: our Parquet; the file itself if absent.
        settings: how to read the file.
        by: see `split_clips`, as are `seed`, `unit` and `named`.
        shares: of the clips for val and test.
        seed: decides among choices as good.
        unit: of the names.
        named: signers or sessions by the split they go to.
        force: write over a file that is there.

    Raises:
        UsageError: the output cannot hold a split column, or something in it would be lost.
    """
    read = read_sources([path], settings)
    target = _target(path, output, force=force)
    if read.dropped and target == path:
        raise UsageError(f"{path}: its bad clips would be lost; write to another --output")
    clips = split_clips(
        read.clips,
        by,
        val_share=shares["val"],
        test_share=shares["test"],
        seed=seed,
        unit=unit,
        named=named,
    )
    had = sum(clip.split is not None for clip in read.clips)
    replaced = [f"the split column said something of {had:,} clips before: replaced"] if had else []
    counts = count_splits(clips)
    # Where people are named, the others are fewer, and the shares are of those.
    warnings = split_warnings(counts, shares if by and not named else {})
    write_clips(clips, target)
    return FileSplit(target, counts, [*read.notes, *replaced, *warnings])


def _target(path: Path, output: Path | None, *, force: bool) -> Path:
    """Choose the file to write; the source itself only if it is ours and loses nothing."""
    if output is not None:
        if output.suffix.lower() == ".csv":
            raise UsageError(
                f"--output {output}: the CSV layout has no split column; let it end in .parquet"
            )
        is_source = path.exists() and output.exists() and path.samefile(output)
        if not is_source:
            check_output(output, force=force)
            return output
    if not recognises(path):
        raise UsageError(
            f"{path}: is not our Parquet, so it has no split column to write; name a file with "
            "--output"
        )
    if others := other_columns(path):
        raise UsageError(
            f"{path}: has columns that would be lost ({', '.join(others)}); write to another file "
            "with --output"
        )
    if not force:
        raise UsageError(
            f"{path}: its split column would be written over; pass --force, or name another file "
            "with --output"
        )
    return path


class SyntheticFile(NamedTuple):
    """The clips of a synthetic set as they were written, its parameters, and notes."""

    clips: list[Clip]
    parameters: dict[str, int | float]
    notes: list[str]


def write_synthetic(
    output: Path,
    parameters: Mapping[str, int | float],
    seed: int,
    *,
    num_clips: int | None = None,
    truth_path: Path | None = None,
    force: bool,
) -> SyntheticFile:
    """Generate a synthetic set and write it.

    Args:
        output: file of the clips.
        parameters: fields of `SynthesisParameters`.
        seed: of the people and the clips.
        num_clips: clips to keep, spread over the glosses; all if absent.
        truth_path: JSON file of what is true of each clip.
        force: write over files that are there.

    Raises:
        UsageError: a file is there already, or a parameter is out of range.
        SlrctlError: a file cannot be written.
    """
    check_output(output, force=force)
    if truth_path is not None and truth_path.exists() and not force:
        raise UsageError(f"{truth_path}: is there already; pass --force, or choose another")
    chosen = SynthesisParameters(**parameters)  # pyright: ignore[reportArgumentType]
    generated = synthesise(chosen, seed)
    clips = list(generated.dataset)
    if num_clips is not None:
        if not 1 <= num_clips <= len(clips):
            raise UsageError(
                f"--clips {num_clips}: must be from 1 to {len(clips)}, what the other numbers "
                "make; raise --repetitions or the numbers of signers for more"
            )
        clips = spread_over_glosses(clips, num_clips, seed)
    notes = write_clips(clips, output)
    if truth_path is not None:
        truth = {clip.clip_id: asdict(generated.truth[clip.clip_id]) for clip in clips}
        try:
            truth_path.parent.mkdir(parents=True, exist_ok=True)
            write_json(truth_path, truth)
        except OSError as error:
            raise SlrctlError(f"{truth_path}: cannot be written ({error.strerror})") from None
    return SyntheticFile(clips, asdict(chosen), notes)
