"""Detect the landmarks of one video with MediaPipe Holistic.

The package is an extra and is imported when it is first needed, in a process of its own: it and
OpenCV write to the terminal as they please, and a broken video may take their process down.
"""

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from slrctl.core.clip import Clip
from slrctl.core.data.readers import parquet
from slrctl.core.data.readers.mediapipe import NUM_HAND, NUM_POSE, landmarks_from_holistic
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.readers.reading import count_of, quote, some_of
from slrctl.core.data.writers import write_clips
from slrctl.errors import DataError, SlrctlError
from slrctl.pool import Crashed, ProcessPool
from slrctl.settings import DataSettings

# What parts of an extraction depend on besides the video: another version may see other things.
DETECTOR = "mediapipe 0.10.21 holistic, model complexity 1"
# The middle one of three models is the only one of the pose that the package carries.
_MODEL_COMPLEXITY = 1
# Less of the frames that a file announces, and it is cut off; some announce a few too many.
_LEAST_SHARE = 0.9
_FASTEST_FPS = 1000.0

_INSTALL = (
    "pip install 'slrctl[video]' into an environment of its own, with Python 3.11 or 3.12: "
    "mediapipe 0.10.21 needs numpy below 2 (docs/video.md)"
)


class Detected(NamedTuple):
    """What was seen in a video; NaN where a landmark was not detected."""

    landmarks: Float32[np.ndarray, "T 54 2"]
    fps: float | None
    aspect: float


class BadVideo(NamedTuple):
    """Why a video gives no clip: a few words for the tally, and the whole story."""

    kind: str
    message: str


class Unusable(NamedTuple):
    """Why no video at all can be read on this machine."""

    message: str


def require_video_extra() -> None:
    """Make sure that the packages are there, without importing them.

    Raises:
        SlrctlError: they are not.
    """
    for package in ("mediapipe", "cv2"):
        if find_spec(package) is None:
            raise SlrctlError(f"reading videos needs {package}, which is not installed; {_INSTALL}")


def detect(path: Path) -> Detected | BadVideo | Unusable:
    """Detect the landmarks in every frame of a video."""
    if not path.is_file():
        return BadVideo("not there", "is not there, expected a video; check the path")
    try:
        cv2, holistic = import_module("cv2"), import_module("mediapipe").solutions.holistic
    except ImportError as error:
        return Unusable(
            f"MediaPipe cannot be loaded ({error}); on Debian and Ubuntu: apt-get install libgl1 "
            f"libegl1 libgles2; else: {_INSTALL}"
        )
    except AttributeError:
        return Unusable(f"this MediaPipe has no Holistic solution with its models; {_INSTALL}")
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # telephones store upright pictures turned
        return _detect_frames(cv2, holistic, capture)
    finally:
        capture.release()


def _detect_frames(cv2: Any, holistic: Any, capture: Any) -> Detected | BadVideo:
    if not capture.isOpened():
        return BadVideo("cannot be opened", "is no video we can open; fetch or convert it again")
    announced = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    frames: list[Float32[np.ndarray, "1 54 2"]] = []
    aspect = 1.0
    # A detector of its own for each video: it follows what it saw in the frames before.
    with holistic.Holistic(model_complexity=_MODEL_COMPLEXITY) as detector:
        while True:
            is_read, picture = capture.read()
            if not is_read:
                break
            height, width = picture.shape[:2]
            aspect = width / height * _pixel_aspect(cv2, capture)
            frames.append(_landmarks(detector.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))))
    if not frames:
        return BadVideo("no frames", "has no frame that can be decoded; fetch or convert it again")
    if len(frames) < _LEAST_SHARE * announced:
        return BadVideo(
            "truncated",
            f"only {len(frames)} of its {count_of(announced, 'frame')} can be decoded; fetch it "
            "again",
        )
    landmarks = np.concatenate(frames)
    if np.isnan(landmarks).all():
        return BadVideo(
            "nobody seen",
            f"nobody was detected in its {count_of(len(frames), 'frame')}; the signer's head and "
            "shoulders must be seen",
        )
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return Detected(landmarks, fps if 0 < fps <= _FASTEST_FPS else None, aspect)


def _pixel_aspect(cv2: Any, capture: Any) -> float:
    """Width of a pixel over its height; 1 where the video does not say."""
    width, height = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    return width / height if width > 0 and height > 0 else 1.0


def _landmarks(seen: Any) -> Float32[np.ndarray, "1 54 2"]:
    return landmarks_from_holistic(
        _points(seen.pose_landmarks, NUM_POSE),
        _points(seen.left_hand_landmarks, NUM_HAND),
        _points(seen.right_hand_landmarks, NUM_HAND),
    )


def _points(found: Any, count: int) -> Float32[np.ndarray, "1 V 2"]:
    if found is None:
        return np.full((1, count, 2), np.nan, np.float32)
    return np.array([[(point.x, point.y) for point in found.landmark]], np.float32)


SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"),
)
UNKNOWN_GLOSS = "unknown"
_NEEDED, _OPTIONAL = ("path", "gloss"), ("signer", "session", "split")


@dataclass(frozen=True)
class Video:
    """One video, which becomes one clip."""

    path: Path
    clip_id: str
    gloss: str
    signer: str | None = None
    session: str | None = None
    split: str | None = None


class Listing(NamedTuple):
    """Videos in a stable order, and one-line notes on how they were found."""

    videos: list[Video]
    notes: list[str]


def list_videos(source: Path, gloss: str | None = None) -> Listing:
    """Find the videos that a path stands for.

    Args:
        source: a video; a folder of videos; a folder with a folder of videos per gloss; or a CSV
            file with the columns path and gloss, and signer, session, split where they are known.
        gloss: what the videos show, where neither a folder nor a column says so.

    Raises:
        DataError: there is no video, or the list cannot be used.
    """
    if not source.exists():
        raise DataError(f"{source}: is not there; check the path")
    try:
        listing = _found_in(source, gloss)
    except OSError as error:
        raise DataError(
            f"{source}: cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    if not listing.videos:
        raise DataError(
            f"{source}: holds no video; we look for *{', *'.join(SUFFIXES)} in the folder "
            "itself, or one folder below it, where the folder's name is the gloss"
        )
    return listing


def _found_in(source: Path, gloss: str | None) -> Listing:
    if source.is_file() and source.suffix.lower() == ".csv":
        return _from_csv(source)
    if source.is_file():
        return _unnamed([source], gloss)
    folders = {folder: _videos_in(folder) for folder in sorted(source.iterdir()) if folder.is_dir()}
    named = {folder: paths for folder, paths in folders.items() if paths}
    lying_loose = _videos_in(source)
    if not named:
        return _unnamed(lying_loose, gloss)
    notes = []
    if lying_loose:
        notes.append(
            f"warning: {count_of(len(lying_loose), 'video')} beside the folders of the glosses "
            f"left out: {some_of([path.name for path in lying_loose])}"
        )
    if empty := [folder.name for folder, paths in folders.items() if not paths]:
        notes.append(f"warning: {count_of(len(empty), 'folder')} without videos: {some_of(empty)}")
    videos = [
        Video(path, f"{folder.name}/{name}", folder.name)
        for folder, paths in named.items()
        for path, name in zip(paths, _clip_names(paths), strict=True)
    ]
    return Listing(videos, notes)


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _clip_names(paths: Sequence[Path]) -> list[str]:
    """Names without their ends, except where two in one folder would then be the same."""
    counts = Counter(path.with_suffix("") for path in paths)
    return [path.stem if counts[path.with_suffix("")] == 1 else path.name for path in paths]


def _unnamed(paths: list[Path], gloss: str | None) -> Listing:
    notes = []
    if gloss is None and paths:
        notes.append(
            f"nothing says what {count_of(len(paths), 'video')} "
            f"{'shows' if len(paths) == 1 else 'show'}: the gloss becomes {UNKNOWN_GLOSS!r}; give "
            "--gloss, a folder per gloss, or a CSV with path and gloss"
        )
    names = _clip_names(paths)
    videos = [
        Video(path, name, gloss or UNKNOWN_GLOSS) for path, name in zip(paths, names, strict=True)
    ]
    return Listing(videos, notes)


def _from_csv(source: Path) -> Listing:
    """Videos a CSV names; their paths start at its folder.

    Raises:
        DataError: a column is missing, or a row has no path or no gloss or repeats another's path.
    """
    rows: dict[str, dict[str, str]] = {}
    for line, row in _rows_of(source):
        for name in _NEEDED:
            if not row[name]:
                raise DataError(f"{source}: line {line}, column {name!r}: is empty; fill it in")
        if row["path"] in rows:
            raise DataError(
                f"{source}: line {line}, column 'path': found {quote(row['path'])}, which a line "
                "above names already; keep one of them"
            )
        rows[row["path"]] = row
    if not rows:
        raise DataError(f"{source}: has no rows; name a video in each, with its gloss")
    paths = [Path(path) for path in rows]
    return Listing(
        [
            Video(
                source.parent / path,
                path.with_name(name).as_posix(),
                row["gloss"],
                *(row[optional] or None for optional in _OPTIONAL),
            )
            for path, name, row in zip(paths, _clip_names(paths), rows.values(), strict=True)
        ],
        [],
    )


def _rows_of(source: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV, counted from 1, each with all columns we know of."""
    line = 1
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            if missing := [name for name in _NEEDED if name not in columns]:
                raise DataError(
                    f"{source}: found the columns {some_of(columns) or 'none'}, expected "
                    f"{', '.join(_NEEDED)} and, where known, {', '.join(_OPTIONAL)}; "
                    f"add {' and '.join(missing)}"
                )
            reader.fieldnames = columns
            for row in reader:
                line = reader.line_num
                yield (
                    line,
                    {name: (row.get(name) or "").strip() for name in (*_NEEDED, *_OPTIONAL)},
                )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: is not UTF-8: byte {error.object[error.start]:#04x} after line {line}; "
            "save it as CSV (UTF-8)"
        ) from None
    except csv.Error as error:
        raise DataError(
            f"{source}: is not CSV after line {line} ({error}); save it as CSV (UTF-8)"
        ) from None


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
    with ProcessPool(detect, num_processes) as pool:
        for path, found in pool.map(by_path):
            if isinstance(found, Unusable):
                raise SlrctlError(found.message)
            if isinstance(found, Crashed):
                found = BadVideo("crashed", f"the decoder crashed ({found.reason})")
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
