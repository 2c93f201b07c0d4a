"""Landmarks of videos, detected with MediaPipe Holistic (`docs/video.md`).

MediaPipe is an extra, imported in processes of their own: it and OpenCV write to the terminal as
they please, and a broken video may take their process down.
"""

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

from slrctl.core.clip import Clip, missing_hand_share
from slrctl.core.data.readers import parquet
from slrctl.core.data.readers.mediapipe import NUM_HAND, NUM_POSE, landmarks_from_holistic
from slrctl.core.data.readers.reading import ClipProblem, read_small_table
from slrctl.core.data.writers import check_output, write_clips
from slrctl.errors import DataError, SlrctlError, count_of, quote, some_of
from slrctl.pool import Crashed, ProcessPool
from slrctl.settings import DataSettings

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"),
)
UNKNOWN_GLOSS = "unknown"
_NEEDED, _OPTIONAL = ("path", "gloss"), ("signer", "session", "split")
# The attributes of a video that its clip takes over.
_FACTS = ("clip_id", "gloss", *_OPTIONAL)

# Clips that are kept depend on it besides the video: another version may see other things.
_DETECTOR = "mediapipe 0.10.21 holistic, model complexity 1"
# The middle one of three models is the only one of the pose that the package carries.
_MODEL_COMPLEXITY = 1
# Of a file that is cut off fewer frames can be decoded; some files announce a few too many.
_LEAST_SHARE = 0.9
_FASTEST_FPS = 1000.0
_INSTALL = (
    "pip install 'slrctl[video]' into an environment of its own, with Python 3.11 or 3.12: "
    "mediapipe 0.10.21 needs numpy below 2 (docs/video.md)"
)


@dataclass(frozen=True)
class Video:
    """One video, which becomes one clip."""

    path: Path
    clip_id: str
    gloss: str
    signer: str | None = None
    session: str | None = None
    split: str | None = None


Listing = tuple[list[Video], list[str]]
"""Videos in a stable order, and one-line notes on how they were found."""


def list_videos(source: Path, gloss: str | None = None) -> Listing:
    """Find the videos that a path stands for.

    Args:
        source: a video; a folder of videos; a folder with a folder of videos per gloss; or a CSV
            file with the columns path and gloss, and signer, session, split where they are known.
        gloss: gloss of the videos, where neither a folder nor a column gives it.

    Raises:
        DataError: there is no video, or the list cannot be used.
    """
    if not source.exists():
        raise DataError(f"{source}: is not there; check the path")
    try:
        if source.is_dir():
            videos, notes = _in_folder(source, gloss)
        elif source.suffix.lower() == ".csv":
            videos, notes = _in_csv(source), []
        else:
            videos, notes = _unnamed([source], gloss)
    except OSError as error:
        raise DataError(
            f"{source}: cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    if not videos:
        raise DataError(
            f"{source}: holds no video; we look for *{', *'.join(SUFFIXES)} in the folder "
            "itself, or one folder below it, where the folder's name is the gloss"
        )
    return videos, notes


def _in_folder(source: Path, gloss: str | None) -> Listing:
    folders = {folder: _videos_in(folder) for folder in sorted(source.iterdir()) if folder.is_dir()}
    beside = _videos_in(source)
    if not any(folders.values()):
        return _unnamed(beside, gloss)
    notes = []
    if beside:
        notes.append(
            f"warning: {count_of(len(beside), 'video')} beside the folders of the glosses "
            f"left out: {some_of([path.name for path in beside])}"
        )
    if empty := [folder.name for folder, paths in folders.items() if not paths]:
        notes.append(f"warning: {count_of(len(empty), 'folder')} without videos: {some_of(empty)}")
    videos = [
        Video(path, f"{folder.name}/{name}", folder.name)
        for folder, paths in folders.items()
        for path, name in zip(paths, _clip_names(paths), strict=True)
    ]
    return videos, notes


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _clip_names(paths: Sequence[Path]) -> list[str]:
    """Drop the suffixes, except where two names in one folder would then be the same."""
    counts = Counter(path.with_suffix("") for path in paths)
    return [path.stem if counts[path.with_suffix("")] == 1 else path.name for path in paths]


def _unnamed(paths: list[Path], gloss: str | None) -> Listing:
    notes = []
    if gloss is None and paths:
        notes.append(
            f"no gloss is known of {count_of(len(paths), 'video')}: it becomes {UNKNOWN_GLOSS!r}; "
            "give --gloss, a folder per gloss, or a CSV with path and gloss"
        )
    names = _clip_names(paths)
    videos = [
        Video(path, name, gloss or UNKNOWN_GLOSS) for path, name in zip(paths, names, strict=True)
    ]
    return videos, notes


def _in_csv(source: Path) -> list[Video]:
    """Find the videos that a CSV names; their paths start at its folder.

    Raises:
        DataError: a column is missing, or a row has no path or no gloss or repeats another's path.
    """
    rows: dict[Path, dict[str, str]] = {}
    for number, cells in enumerate(read_small_table(source, _NEEDED), start=1):
        row = {name: cells.get(name, "").strip() for name in (*_NEEDED, *_OPTIONAL)}
        for name in _NEEDED:
            if not row[name]:
                raise DataError(f"{source}: row {number}, column {name!r}: is empty; fill it in")
        path = Path(row["path"])
        if path in rows:
            raise DataError(
                f"{source}: row {number}, column 'path': found {quote(row['path'])}, which a row "
                "above names already; keep one of them"
            )
        rows[path] = row
    return [
        Video(
            source.parent / path,
            path.with_name(name).as_posix(),
            row["gloss"],
            *(row[optional] or None for optional in _OPTIONAL),
        )
        for (path, row), name in zip(rows.items(), _clip_names(list(rows)), strict=True)
    ]


class BadVideo(NamedTuple):
    """Why a video gives no clip: a few words for the tally, and the whole reason."""

    kind: str
    message: str


def require_video_extra() -> None:
    """Make sure that the packages are installed, without importing them.

    Raises:
        SlrctlError: they are not.
    """
    for package in ("mediapipe", "cv2"):
        if find_spec(package) is None:
            raise SlrctlError(f"reading videos needs {package}, which is not installed; {_INSTALL}")


def detect(path: Path) -> Clip | BadVideo | SlrctlError:
    """Detect the landmarks in every frame of a video.

    Returns:
        A clip without names; or why this video gives none; or why no video does on this machine.
    """
    if not path.is_file():
        return BadVideo("not there", "is not there, expected a video; check the path")
    try:
        cv2, holistic = import_module("cv2"), import_module("mediapipe").solutions.holistic
    except ImportError as error:
        return SlrctlError(
            f"MediaPipe cannot be loaded ({error}); on Debian and Ubuntu: apt-get install libgl1 "
            f"libegl1 libgles2; else: {_INSTALL}"
        )
    except AttributeError:
        return SlrctlError(f"this MediaPipe has no Holistic solution with its models; {_INSTALL}")
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # telephones store upright pictures turned
        return _detect_frames(cv2, holistic, capture)
    finally:
        capture.release()


def _detect_frames(cv2: Any, holistic: Any, capture: Any) -> Clip | BadVideo:
    if not capture.isOpened():
        return BadVideo("cannot be opened", "is no video we can open; fetch or convert it again")
    announced = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    frames: list[Float32[np.ndarray, "1 54 2"]] = []
    aspect = 1.0
    # A detector for each video: it follows people from frame to frame.
    with holistic.Holistic(model_complexity=_MODEL_COMPLEXITY) as detector:
        while True:
            is_read, picture = capture.read()
            if not is_read:
                break
            height, width = picture.shape[:2]
            aspect = width / height * _pixel_aspect(cv2, capture)
            results = detector.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            frames.append(landmarks_of(results))
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
    fps = fps if 0 < fps <= _FASTEST_FPS else None
    return Clip("video", UNKNOWN_GLOSS, landmarks, fps=fps, aspect=aspect)


def _pixel_aspect(cv2: Any, capture: Any) -> float:
    """Return the width of a pixel over its height; 1 where the video does not say."""
    width, height = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    return width / height if width > 0 and height > 0 else 1.0


def landmarks_of(results: Any) -> Float32[np.ndarray, "1 54 2"]:
    """Put MediaPipe's results for one frame in our order; NaN where nothing was detected."""
    return landmarks_from_holistic(
        _points(results.pose_landmarks, NUM_POSE),
        _points(results.left_hand_landmarks, NUM_HAND),
        _points(results.right_hand_landmarks, NUM_HAND),
    )


def _points(found: Any, count: int) -> Float32[np.ndarray, "1 V 2"]:
    if found is None:
        return np.full((1, count, 2), np.nan, np.float32)
    return np.array([[(point.x, point.y) for point in found.landmark]], np.float32)


class VideoReport(NamedTuple):
    """Progress of an extraction after a video; `failure` is None if the video gave a clip."""

    video: Video
    num_done: int
    num_videos: int
    failure: BadVideo | None


class ExtractionReport(NamedTuple):
    """End of an extraction: the clips as they were written, and the videos that gave none.

    `num_resumed` clips were kept from an extraction that was stopped. `notes` say what the output
    could not hold. `kept_dir` is left where videos failed, so that another try repeats only those.
    """

    clips: list[Clip]
    failures: dict[Video, BadVideo]
    num_resumed: int
    notes: list[str]
    kept_dir: Path | None

    @property
    def missing_hands(self) -> tuple[float, float]:
        """Share of the frames without the left hand, and without the right one."""
        return missing_hand_share(self.clips)


def prepare_extraction(source: Path, output: Path, gloss: str | None, *, force: bool) -> Listing:
    """List the videos of a source, once it is sure that they can be read and written.

    Raises:
        UsageError: the extra `video` is not installed, or the output cannot be written over.
        DataError: the source holds no videos, or does not say what they show.
    """
    check_output(output, force=force)
    require_video_extra()
    return list_videos(source, gloss)


def kept_dir_of(output: Path) -> Path:
    """Return the folder beside an output in which an extraction keeps finished clips."""
    return output.with_name(f"{output.name}.parts")


def extract_videos(
    videos: Sequence[Video], output: Path, num_processes: int
) -> Iterator[VideoReport | ExtractionReport]:
    """Detect landmarks in every video and write the clips to one file.

    Each clip is kept in a file of its own as soon as it is done; an extraction that was killed
    continues with the videos that are left, or were changed meanwhile. Without a single clip
    nothing is written.

    Args:
        videos: in the order of the clips in the output.
        output: the file, in the format its name asks for; its folder is created if need be.
        num_processes: videos worked on at a time.

    Raises:
        SlrctlError: videos cannot be read on this machine, or the output cannot be written.
    """
    kept_dir = kept_dir_of(output)
    try:
        kept_dir.mkdir(parents=True, exist_ok=True)
        kept = {video: kept_dir / _kept_name(video) for video in videos}
        clips = {video: clip for video, path in kept.items() if (clip := _read_kept(path))}
        failures: dict[Video, BadVideo] = {}
        num_resumed, by_path = len(clips), {v.path: v for v in videos if v not in clips}
        with ProcessPool(detect, num_processes) as pool:
            for path, found in pool.map(by_path):
                video = by_path[path]
                if isinstance(found, SlrctlError):
                    raise found
                if isinstance(found, Clip):
                    parquet.write_parquet([found], kept[video])
                    clips[video] = found
                elif isinstance(found, Crashed):
                    failures[video] = BadVideo("crashed", f"the decoder crashed ({found.reason})")
                else:
                    failures[video] = found
                num_done = len(clips) + len(failures)
                yield VideoReport(video, num_done, len(videos), failures.get(video))
        finished = [
            replace(clips[video], **{name: getattr(video, name) for name in _FACTS})
            for video in videos
            if video in clips
        ]
        notes = write_clips(finished, output) if finished else []
        is_complete = not failures or not finished
        if is_complete:
            shutil.rmtree(kept_dir)
    except OSError as error:
        raise SlrctlError(
            f"{error.filename or output}: {error.strerror or error}; choose another place for the "
            "output, or make room; what is done is kept"
        ) from error
    in_order = {video: failures[video] for video in videos if video in failures}
    yield ExtractionReport(
        finished, in_order, num_resumed, notes, None if is_complete else kept_dir
    )


def _kept_name(video: Video) -> str:
    """Name a file after the video, its state and the detector, which decide the content."""
    facts = [video.clip_id, _DETECTOR]
    if video.path.is_file():
        state = video.path.stat()
        facts += [str(state.st_size), str(state.st_mtime_ns)]
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest() + ".parquet"


def _read_kept(path: Path) -> Clip | None:
    """Read a kept clip; None where it is missing or damaged, as after a power cut."""
    try:
        (clip,) = parquet.read(path, DataSettings(), None).clips if path.is_file() else (None,)
    except (ClipProblem, DataError):
        return None
    return clip
