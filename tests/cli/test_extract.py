"""`slrctl data extract` on videos of a person, which needs the environment of the extra `video`."""

import json
import os
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import call

from slrctl.core import skeleton
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.video import kept_dir_of

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("mediapipe", "cv2", "skimage")),
    reason="needs the packages of constraints-video.txt, which have an environment of their own",
)

WIDTH, HEIGHT, FPS = 640, 480, 25
# Where the person's nose and the middle of her shoulders are in the picture of 512 by 512.
NOSE, NECK = (225, 128), (215, 225)


def person(*, shift: int = 0, is_mirrored: bool = False) -> np.ndarray:
    """A frame with a photograph of a person, so many pixels from its left edge."""
    data = pytest.importorskip("skimage.data")
    frame = np.full((HEIGHT, WIDTH, 3), 96, np.uint8)
    frame[:, shift : shift + 512] = data.astronaut()[:HEIGHT, :, ::-1]
    return np.ascontiguousarray(frame[:, ::-1]) if is_mirrored else frame


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, FPS, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the JSON object on standard output, and what people read."""
    result = call("data", "extract", *arguments, "--json")
    return result.exit_code, json.loads(result.stdout or "{}"), result.stderr


@pytest.fixture(scope="session")
def moving(tmp_path_factory) -> Path:
    """A person who moves to the right by 6 pixels a frame."""
    path = tmp_path_factory.mktemp("videos") / "book" / "1.mp4"
    return write_video(path, [person(shift=6 * number) for number in range(12)])


@pytest.fixture(scope="session")
def seen(moving, tmp_path_factory) -> np.ndarray:
    output = tmp_path_factory.mktemp("seen") / "seen.parquet"
    assert run(moving, output)[0] == 0
    return load_dataset(output)[0].landmarks


def test_a_person_is_found_where_she_is_and_where_she_moves(seen):
    shift = 6 * np.arange(12)[:, None]
    noses, necks = (
        (np.array([point]) + np.concatenate([shift, 0 * shift], axis=1)) / (WIDTH, HEIGHT)
        for point in (NOSE, NECK)
    )

    np.testing.assert_allclose(seen[:, skeleton.NOSE], noses, atol=0.03)
    np.testing.assert_allclose(seen[:, skeleton.NECK], necks, atol=0.05)
    right, left = seen[:, skeleton.RIGHT_SHOULDER], seen[:, skeleton.LEFT_SHOULDER]
    assert (left[:, 0] - right[:, 0] > 0.15).all()  # she faces us, so her left is to our right
    assert np.isnan(seen[:, [*range(12, 54)]]).all()  # no hand shows
    assert not np.isnan(seen[:, skeleton.BODY]).any()


def test_a_mirrored_video_gives_mirrored_landmarks(seen, tmp_path):
    frames = [person(shift=6 * number, is_mirrored=True) for number in range(12)]
    video = write_video(tmp_path / "mirrored.mp4", frames)

    assert run(video, tmp_path / "out.parquet", "--gloss", "book")[0] == 0

    mirrored = load_dataset(tmp_path / "out.parquet")[0].landmarks[:, skeleton.MIRROR]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    # The detector does not see a mirror image quite as the mirror image of what it sees; were left
    # and right confused, the shoulders would be off by 0.24.
    sure = slice(skeleton.NOSE, skeleton.LEFT_SHOULDER + 1)
    np.testing.assert_allclose(mirrored[:, sure], seen[:, sure], atol=0.08)


def test_an_extraction_repeats_to_the_bit(moving, seen, tmp_path):
    assert run(moving, tmp_path / "again.parquet", "--jobs", 2)[0] == 0

    assert load_dataset(tmp_path / "again.parquet")[0].landmarks.tobytes() == seen.tobytes()


def test_a_clip_knows_its_names_its_speed_and_its_shape(moving, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(f"path,gloss,signer,session,split\n{moving},book,ann,monday,val\n")

    code, summary, _ = run(table, tmp_path / "out.parquet")

    (clip,) = load_dataset(tmp_path / "out.parquet")
    assert code == 0
    assert (summary["clips"], summary["frames"], summary["glosses"]) == (1, 12, 1)
    assert (clip.gloss, clip.signer, clip.session, clip.split) == ("book", "ann", "monday", "val")
    assert clip.fps == FPS
    assert clip.aspect == pytest.approx(WIDTH / HEIGHT)
    assert not kept_dir_of(tmp_path / "out.parquet").exists()


def test_the_picture_of_a_telephone_is_turned_upright(seen, tmp_path):
    frames = [np.ascontiguousarray(np.rot90(person())) for _ in range(4)]
    video = write_video(tmp_path / "phone.mp4", frames)
    # A player is told to turn it clockwise by the matrix in the header of the track.
    content = bytearray(video.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16
    assert struct.unpack(">9i", content[matrix : matrix + 36])[0] == 0x10000
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    content[matrix : matrix + 36] = turned
    video.write_bytes(content)

    assert run(video, tmp_path / "out.parquet")[0] == 0

    (clip,) = load_dataset(tmp_path / "out.parquet")
    assert clip.aspect == pytest.approx(WIDTH / HEIGHT)
    np.testing.assert_allclose(
        clip.landmarks[0, skeleton.NOSE], np.array(NOSE) / (WIDTH, HEIGHT), atol=0.03
    )


def test_videos_that_cannot_be_used_stop_nothing_and_only_they_are_tried_again(moving, tmp_path):
    folder, output = tmp_path / "mixed", tmp_path / "out.parquet"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "good.mp4").write_bytes(moving.read_bytes())
    (folder / "book" / "text.mp4").write_text("this is no video")
    cut = write_video(folder / "house" / "cut.avi", [person()] * 20)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write_video(folder / "house" / "nobody.mp4", [np.full((HEIGHT, WIDTH, 3), 96, np.uint8)] * 5)
    (folder / "house" / "empty.mp4").touch()

    code, summary, stderr = run(folder, output)
    clip_ids = [clip.clip_id for clip in load_dataset(output)]
    write_video(cut, [person()] * 4)
    refused, again = run(folder, output), run(folder, output, "--force")

    assert (code, clip_ids) == (0, ["book/good"])
    assert {clip["clip_id"]: clip["reason"] for clip in summary["failed"]} == {
        "book/text": "cannot be opened",
        "house/cut": "truncated",
        "house/empty": "cannot be opened",
        "house/nobody": "nobody seen",
    }
    assert "warning: 4 of 5 videos gave no clip: 2 cannot be opened" in stderr
    assert "of its 20 frames can be decoded" in stderr
    assert (refused[0], "pass --force" in refused[2]) == (2, True)
    assert again[0] == 0
    assert (again[1]["clips"], again[1]["kept_from_before"]) == (2, 1)


def test_without_a_single_clip_nothing_is_written(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")

    code, summary, stderr = run(tmp_path, tmp_path / "out.parquet")

    assert code == 1
    assert summary["output"] is None
    assert "none of 1 videos gave a clip; the first:" in stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "text.mp4"]


def copies_of(video: Path, tmp_path: Path, count: int) -> Path:
    """A folder of copies of a video, and a bad one so that the finished clips are kept."""
    folder = tmp_path / "videos"
    (folder / "book").mkdir(parents=True)
    for number in range(count):
        (folder / "book" / f"{number}.mp4").write_bytes(video.read_bytes())
    (folder / "book" / "bad.mp4").write_text("this is no video")
    return folder


def test_an_extraction_that_was_killed_goes_on_with_what_is_left(moving, tmp_path):
    folder, output = copies_of(moving, tmp_path, 4), tmp_path / "out.parquet"
    command = [sys.executable, "-c", "from slrctl.cli import main; main()", "data", "extract"]
    parts = kept_dir_of(output)

    extraction = subprocess.Popen([*command, folder, output], stderr=subprocess.DEVNULL)
    while len(finished := sorted(parts.glob("[!.]*.parquet"))) < 2:
        assert extraction.poll() is None
        time.sleep(0.01)
    extraction.kill()
    extraction.wait()
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert not output.exists()
    code, summary, _ = run(folder, output)

    assert code == 0
    assert summary["clips"] == 4
    assert 2 <= summary["kept_from_before"] < 4
    assert {path: path.stat().st_mtime_ns for path in finished} == before


def test_a_clip_of_a_video_that_changed_and_a_damaged_one_are_done_again(moving, tmp_path):
    folder, output = copies_of(moving, tmp_path, 3), tmp_path / "out.parquet"
    run(folder, output)
    changed = folder / "book" / "1.mp4"
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    sorted(kept_dir_of(output).iterdir())[0].write_bytes(b"PAR1 cut off")

    _, summary, _ = run(folder, output, "--force")

    assert summary["clips"] == 3
    assert summary["kept_from_before"] in (1, 2)  # the damaged one may be the changed one
