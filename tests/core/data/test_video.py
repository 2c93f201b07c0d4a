"""Videos are listed, and MediaPipe's results put in our order; without MediaPipe itself."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.data import video as video_module
from slrctl.core.data.video import (
    BadVideo,
    Video,
    detect,
    landmarks_of,
    list_videos,
    require_video_extra,
)
from slrctl.errors import DataError, SlrctlError


def points(count: int, offset: float) -> SimpleNamespace:
    """Landmarks as MediaPipe returns them; number n is at (n + offset, n - offset)."""
    landmarks = [SimpleNamespace(x=n + offset, y=n - offset, z=0.0) for n in range(count)]
    return SimpleNamespace(landmark=landmarks)


def test_detected_landmarks_are_put_in_our_order():
    seen = SimpleNamespace(
        pose_landmarks=points(33, 0.25),
        left_hand_landmarks=points(21, 100.5),
        right_hand_landmarks=points(21, 200.5),
    )

    (frame,) = landmarks_of(seen)

    place = skeleton.LANDMARK_NAMES.index
    np.testing.assert_array_equal(frame[place("nose")], (0.25, -0.25))
    np.testing.assert_array_equal(frame[place("leftWrist")], (15.25, 14.75))
    np.testing.assert_array_equal(frame[place("neck")], (11.75, 11.25))
    np.testing.assert_array_equal(frame[place("wrist_left")], (100.5, -100.5))
    np.testing.assert_array_equal(frame[place("indexTip_left")], (108.5, -92.5))
    np.testing.assert_array_equal(frame[place("thumbCMC_right")], (201.5, -199.5))


def test_undetected_landmarks_are_missing():
    seen = SimpleNamespace(
        pose_landmarks=None, left_hand_landmarks=points(21, 0.5), right_hand_landmarks=None
    )

    (frame,) = landmarks_of(seen)

    is_missing = np.isnan(frame).all(-1)
    assert not is_missing[skeleton.LEFT_HAND].any()
    assert is_missing[skeleton.BODY].all()
    assert is_missing[skeleton.RIGHT_HAND].all()


def test_a_missing_extra_is_named_with_what_it_needs(monkeypatch):
    monkeypatch.setattr(video_module, "find_spec", lambda name: None)

    with pytest.raises(SlrctlError, match=r"mediapipe, .*pip install 'slrctl\[video\]'"):
        require_video_extra()


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        (ImportError("libGL.so.1: cannot open shared object file"), "apt-get install libgl1"),
        (SimpleNamespace(), "no Holistic solution"),
    ],
)
def test_a_mediapipe_that_cannot_be_used_says_what_to_install(monkeypatch, tmp_path, found, advice):
    def import_module(name: str) -> object:
        if isinstance(found, ImportError):
            raise found
        return found

    monkeypatch.setattr(video_module, "import_module", import_module)
    video = tmp_path / "video.mp4"
    video.touch()

    unusable = detect(video)

    assert isinstance(unusable, SlrctlError)
    assert advice in str(unusable)


def test_a_video_that_is_not_there_needs_no_mediapipe(tmp_path):
    found = detect(tmp_path / "nowhere.mp4")

    assert isinstance(found, BadVideo)
    assert found.kind == "not there"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_per_gloss_names_glosses_and_clips(tmp_path):
    touch(tmp_path, "book/2.mp4", "book/1.MOV", "book/notes.txt", "house/1.webm")

    videos, notes = list_videos(tmp_path)

    assert [(video.clip_id, video.gloss) for video in videos] == [
        ("book/1", "book"),
        ("book/2", "book"),
        ("house/1", "house"),
    ]
    assert videos[0].path == tmp_path / "book" / "1.MOV"
    assert notes == []


def test_videos_beside_the_folders_and_empty_folders_are_noted(tmp_path):
    touch(tmp_path, "book/1.mp4", "intro.mp4", "empty/readme.txt")

    videos, notes = list_videos(tmp_path)

    assert [video.clip_id for video in videos] == ["book/1"]
    assert ["intro.mp4" in notes[0], "empty" in notes[1], len(notes)] == [True, True, 2]


@pytest.mark.parametrize(("gloss", "expected"), [(None, "unknown"), ("book", "book")])
def test_a_flat_folder_and_a_single_video_show_the_gloss_that_is_given(tmp_path, gloss, expected):
    touch(tmp_path, "b.mp4", "a.avi")

    folder, single = list_videos(tmp_path, gloss), list_videos(tmp_path / "b.mp4", gloss)

    assert [(video.clip_id, video.gloss) for video in folder[0]] == [
        ("a", expected),
        ("b", expected),
    ]
    assert single[0] == [folder[0][1]]
    assert len(folder[1]) == len(single[1]) == (1 if gloss is None else 0)


def test_names_that_would_be_the_same_keep_their_ends(tmp_path):
    touch(tmp_path, "book/1.mp4", "book/1.avi", "book/2.mp4", "house/1.mp4")

    videos, _ = list_videos(tmp_path)

    assert [video.clip_id for video in videos] == [
        "book/1.avi",
        "book/1.mp4",
        "book/2",
        "house/1",
    ]


def test_a_csv_names_gloss_signer_and_split(tmp_path):
    (tmp_path / "list.csv").write_text(
        "\ufeffgloss, path ,split,signer,remark\nbook,some/1.mp4,train,ann,x\nhouse,1.mp4,,,\n",
        encoding="utf-8",
    )

    videos, _ = list_videos(tmp_path / "list.csv")

    assert videos == [
        Video(tmp_path / "some/1.mp4", "some/1", "book", signer="ann", split="train"),
        Video(tmp_path / "1.mp4", "1", "house"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\n1.mp4,a\n", "'label'.*path, gloss"),
        (b"path,gloss\n1.mp4,a\n2.mp4,\n", "row 2, column 'gloss'"),
        (b"path,gloss\n1.mp4,a\n1.mp4,b\n", "row 2, column 'path': found '1.mp4'"),
        (b"path,gloss\n", "0 rows"),
        (b"", "path, gloss"),
        (b'path,gloss\n"1.mp4,a\n', "row 1, column 'gloss'"),
        ("path,gloss\n1.mp4,später\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_before_anything_is_done(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"list.csv: .*{message}"):
        list_videos(path)


def test_a_place_without_videos_is_refused(tmp_path):
    touch(tmp_path, "book/readme.txt")

    with pytest.raises(DataError, match="holds no video"):
        list_videos(tmp_path)
    with pytest.raises(DataError, match="is not there"):
        list_videos(tmp_path / "nowhere")
