from pathlib import Path

import pytest

from slrctl.core.data.video import Video, list_videos
from slrctl.errors import DataError


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


def test_videos_beside_the_folders_and_empty_folders_are_told_of(tmp_path):
    touch(tmp_path, "book/1.mp4", "intro.mp4", "empty/readme.txt")

    videos, notes = list_videos(tmp_path)

    assert [video.clip_id for video in videos] == ["book/1"]
    assert notes == [
        "warning: 1 video beside the folders of the glosses left out: 'intro.mp4'",
        "warning: 1 folder without videos: 'empty'",
    ]


@pytest.mark.parametrize(("gloss", "expected"), [(None, "unknown"), ("book", "book")])
def test_a_flat_folder_and_a_single_video_show_what_is_said(tmp_path, gloss, expected):
    touch(tmp_path, "b.mp4", "a.avi")

    folder, single = list_videos(tmp_path, gloss), list_videos(tmp_path / "b.mp4", gloss)

    assert [(video.clip_id, video.gloss) for video in folder.videos] == [
        ("a", expected),
        ("b", expected),
    ]
    assert single.videos == [folder.videos[1]]
    assert len(folder.notes) == len(single.notes) == (1 if gloss is None else 0)


def test_names_that_would_be_the_same_keep_their_ends(tmp_path):
    touch(tmp_path, "book/1.mp4", "book/1.avi", "book/2.mp4", "house/1.mp4")

    videos, _ = list_videos(tmp_path)

    assert [video.clip_id for video in videos] == [
        "book/1.avi",
        "book/1.mp4",
        "book/2",
        "house/1",
    ]


def test_a_csv_says_all_that_is_known(tmp_path):
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
    ("text", "message"),
    [
        ("path,label\n1.mp4,a\n", "found the columns 'path', 'label', expected path, gloss"),
        ("path,gloss\n1.mp4,a\n2.mp4,\n", "line 3, column 'gloss': is empty"),
        ("path,gloss\n1.mp4,a\n1.mp4,b\n", "line 3, column 'path': found '1.mp4', which a line"),
        ("path,gloss\n", "has no rows"),
        ("", "found the columns none"),
        ('path,gloss\n"1.mp4,a\n', "is not CSV"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_before_anything_is_done(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)

    with pytest.raises(DataError) as caught:
        list_videos(path)

    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_csv_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("path,gloss\n1.mp4,später\n".encode("latin-1"))

    with pytest.raises(DataError, match="is not UTF-8: byte 0xe4"):
        list_videos(path)


def test_a_place_without_videos_is_refused(tmp_path):
    touch(tmp_path, "book/readme.txt")

    with pytest.raises(DataError, match="holds no video"):
        list_videos(tmp_path)
    with pytest.raises(DataError, match="is not there"):
        list_videos(tmp_path / "nowhere")
