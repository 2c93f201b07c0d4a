"""Turn videos into a file of clips, in processes, so that what is done is never done again."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.formats import parquet
from slrctl.core.data.formats.parquet import write_parquet
from slrctl.core.data.formats.writing import write_clips
from slrctl.core.data.video.holistic import DETECTOR, BadVideo, Detected, Unusable, detect
from slrctl.core.data.video.listing import Video
from slrctl.engine.processes import Crashed, in_processes
from slrctl.errors import DataError, SlrctlError
from slrctl.settings import DataSettings


class Failure(NamedTuple):
    """A video that gave no clip."""

    video: Video
    reason: BadVideo


class VideoReport(NamedTuple):
    """After each video: how far the extraction is."""

    video: Video
    num_done: int
    num_videos: int
    failure: Failure | None


class ExtractionReport(NamedTuple):
    """At the end: the clips as they were written, and the videos that gave none.

    `num_resumed` clips were there from an extraction that was stopped. `notes` say what the output
    could not hold. `parts_dir` is kept where videos failed, so that another try repeats only those.
    """

    clips: list[Clip]
    failures: list[Failure]
    num_resumed: int
    notes: list[str]
    parts_dir: Path | None


def parts_dir_of(output: Path) -> Path:
    """The folder beside an output in which an extraction keeps the clips that are done."""
    return output.with_name(f"{output.name}.parts")


def extract(
    videos: Sequence[Video], output: Path, num_processes: int
) -> Iterator[VideoReport | ExtractionReport]:
    """Detect landmarks in every video and write the clips to one file.

    Each clip is kept in a file of its own as soon as it is done; an extraction that was killed goes
    on with the videos that are left, or were changed meanwhile. No clip at all: nothing is written.

    Args:
        videos: in the order of the clips in the output.
        output: the file, in the format its name asks for; its folder is made if need be.
        num_processes: videos worked on at a time.

    Raises:
        SlrctlError: videos cannot be read on this machine, or the output cannot be written.
    """
    parts_dir = parts_dir_of(output)
    try:
        parts_dir.mkdir(parents=True, exist_ok=True)
        parts = {video: parts_dir / _part_name(video) for video in videos}
        clips = {video: clip for video, path in parts.items() if (clip := _read_part(path))}
        failures: dict[Video, Failure] = {}
        num_resumed, missing = len(clips), [video for video in videos if video not in clips]
        for video, found in _detect_all(missing, num_processes):
            if isinstance(found, BadVideo):
                failures[video] = Failure(video, found)
            else:
                clip = Clip("part", "part", found.landmarks, fps=found.fps, aspect=found.aspect)
                write_parquet([clip], parts[video])
                clips[video] = clip
            yield VideoReport(video, len(clips) + len(failures), len(videos), failures.get(video))
        finished = [_named(clips[video], video) for video in videos if video in clips]
        notes = write_clips(finished, output) if finished else []
        if not failures or not finished:
            shutil.rmtree(parts_dir)
    except OSError as error:
        raise SlrctlError(
            f"{error.filename or output}: {error.strerror or error}; choose another place for the "
            "output, or make room; what is done is kept"
        ) from error
    in_order = [failures[video] for video in videos if video in failures]
    yield ExtractionReport(
        finished, in_order, num_resumed, notes, parts_dir if failures and finished else None
    )


def _detect_all(
    videos: Sequence[Video], num_processes: int
) -> Iterator[tuple[Video, Detected | BadVideo]]:
    by_path = {video.path: video for video in videos}
    for path, found in in_processes(detect, list(by_path), num_processes):
        if isinstance(found, Unusable):
            raise SlrctlError(found.message)
        if isinstance(found, Crashed):
            found = BadVideo("crashed", f"the decoder crashed (exit code {found.exit_code})")
        yield by_path[path], found


def _part_name(video: Video) -> str:
    """Named after what decides the content: which video in which state, seen by what."""
    facts = [video.clip_id, DETECTOR]
    if video.path.is_file():
        state = video.path.stat()
        facts += [str(state.st_size), str(state.st_mtime_ns)]
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest() + ".parquet"


def _read_part(path: Path) -> Clip | None:
    """The clip of a part; None where it is missing or damaged, as after a power cut."""
    try:
        (clip,) = parquet.read(path, DataSettings(), None).clips if path.is_file() else (None,)
    except DataError:
        return None
    return clip


def _named(clip: Clip, video: Video) -> Clip:
    return replace(
        clip,
        clip_id=video.clip_id,
        gloss=video.gloss,
        signer=video.signer,
        session=video.session,
        split=video.split,
    )
