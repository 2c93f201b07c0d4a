"""Reports on files of clips: their numbers and pictures, and one clip, frame by frame."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from slrctl.core.clip import Clip
from slrctl.core.data.overview import Overview, describe_clips
from slrctl.core.data.rectify import RectificationReport, rectification_report
from slrctl.core.data.selection import find_clip, read_sources, typical_clips
from slrctl.files import writing_to
from slrctl.reports.skeletons import (
    STREAMS,
    USUAL_FPS,
    draw_animation,
    draw_sheets,
    draw_strip,
    hand_presence,
    shown_frames,
    strip_name,
    window_of,
)
from slrctl.reports.terminal import draw_braille, draw_letters, fit_size
from slrctl.settings import DataSettings, PrepareSettings

_LETTER_COLUMNS, _LETTER_ROWS, _LETTER_FRAMES = 60, 24, 4


class FileReport(NamedTuple):
    """A file of clips in numbers, and the pictures that were drawn of it."""

    path: Path
    overview: Overview
    notes: list[str]
    dropped_by_reason: dict[str, int]
    rectification: RectificationReport | None
    pictures: list[dict[str, str]] | None

    def to_json(self) -> dict[str, Any]:
        aspects = self.overview.aspects.items()
        facts = {
            "path": str(self.path),
            **_nested(self.overview),
            "classes": len(self.overview.glosses),
            "aspects": [{"aspect": aspect, "clips": clips} for aspect, clips in aspects],
            "dropped_by_reason": self.dropped_by_reason,
            "notes": self.notes,
        }
        if self.rectification is not None:
            facts["rectification"] = _nested(self.rectification)
        return facts if self.pictures is None else {**facts, "pictures": self.pictures}


def _nested(value: Any) -> Any:
    """Turn a NamedTuple and those within it into dictionaries."""
    if hasattr(value, "_asdict"):
        return {name: _nested(item) for name, item in value._asdict().items()}
    return [_nested(item) for item in value] if isinstance(value, (tuple, list)) else value


def report_file(
    path: Path,
    settings: DataSettings,
    *,
    rectify_alpha: float | None,
    pictures: Path | None,
    most: int,
) -> FileReport:
    """Describe a file of clips.

    Args:
        path: the file.
        settings: how to read it.
        rectify_alpha: share of the excess by which joints are rectified, for a report on that.
        pictures: folder of pictures to draw.
        most: glosses to draw.
    """
    read = read_sources([path], settings)
    return FileReport(
        path,
        describe_clips(read.clips),
        read.notes,
        dict(Counter(clip.kind for _, clip in read.dropped).most_common()),
        None
        if rectify_alpha is None
        else rectification_report(read.clips, PrepareSettings(rectify_alpha=rectify_alpha)),
        None if pictures is None else _draw_gallery(read.clips, pictures, most),
    )


def _draw_gallery(clips: list[Clip], folder: Path, most: int) -> list[dict[str, str]]:
    """Draw a strip for each of the first glosses, and sheets of all of them."""
    chosen = typical_clips(clips, most)
    pictures = []
    with writing_to(folder):
        for number, clip in enumerate(chosen, start=1):
            path = folder / strip_name(number, clip.gloss)
            draw_strip(clip, path)
            pictures.append({"gloss": clip.gloss, "clip_id": clip.clip_id, "path": str(path)})
        sheets = draw_sheets(chosen, folder)
    return [*pictures, *({"path": str(sheet)} for sheet in sheets)]


class ShownClip:
    """A clip, not prepared, and its pictures in characters and in files."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.window = window_of(clip.landmarks, clip.aspect)
        self.usual_fps = clip.fps or USUAL_FPS

    def picture(self, number: int, columns: int, rows: int) -> Group:
        """Draw a frame in colours, with a legend below."""
        clip = self.clip
        size = fit_size(self.window, columns, rows)
        legend = Text.assemble(
            f"frame {number + 1:>{len(str(clip.num_frames))}}/{clip.num_frames}  ",
            *((f"{stream.name}  ", stream.color) for stream in STREAMS),
            "\u25cb hand not detected",
        )
        return Group(*draw_braille(clip.landmarks[number], clip.aspect, self.window, *size), legend)

    def letters(self) -> list[str]:
        """Draw a few frames one below the other, without colours."""
        clip = self.clip
        size = fit_size(self.window, _LETTER_COLUMNS, _LETTER_ROWS)
        lines = [". body, L left hand, R right hand, l r where one was not detected"]
        for number in shown_frames(clip.num_frames, _LETTER_FRAMES).tolist():
            lines.append(f"frame {number + 1} of {clip.num_frames}")
            lines += draw_letters(clip.landmarks[number], clip.aspect, self.window, *size)
        return lines

    def draw(self, output: Path, fps: float | None) -> None:
        """Draw an animation, or a strip of frames, by the suffix of the file."""
        with writing_to(output.parent):
            if output.suffix.lower() == ".gif":
                draw_animation(self.clip, output, fps=fps)
            else:
                draw_strip(self.clip, output)

    def to_json(self) -> dict[str, Any]:
        clip = self.clip
        left, right = hand_presence(clip.landmarks)
        return {
            "clip_id": clip.clip_id,
            "gloss": clip.gloss,
            "signer": clip.signer,
            "session": clip.session,
            "split": clip.split,
            "frames": clip.num_frames,
            "fps": clip.fps,
            "aspect": clip.aspect,
            "left_hand_present": float(left.mean()),
            "right_hand_present": float(right.mean()),
        }


def open_clip(
    path: Path, settings: DataSettings, which: str | None, gloss: str | None
) -> ShownClip:
    """Find a clip in a file; see `find_clip`."""
    return ShownClip(find_clip(read_sources([path], settings).clips, which, gloss))
