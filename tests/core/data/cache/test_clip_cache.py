import os
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from slrctl.core.clip import Clip
from slrctl.core.data.cache import (
    ClipCache,
    DamagedFile,
    StoredClips,
    map_clip_file,
    write_clip_file,
)

KEY, OTHER = "a" * 32, "b" * 32


def clip_of(number: int, num_frames: int) -> Clip:
    landmarks = np.random.default_rng(number).random((num_frames, 54, 2), dtype=np.float32)
    landmarks[landmarks < 0.2] = np.nan
    return Clip(f"clip {number}", "book", landmarks, "ann", None, "train", 29.97, 16 / 9)


CLIPS = [
    clip_of(0, 3),
    clip_of(1, 1),
    Clip("", "ü\x1b[31m", np.full((2, 54, 2), 0.5, np.float32)),
    clip_of(3, 5),
]


def facts_of(clip: Clip) -> tuple:
    return (
        clip.clip_id, clip.gloss, clip.signer, clip.session, clip.split, clip.fps, clip.aspect
    )  # fmt: skip


def assert_same_clips(found, expected) -> None:
    assert [facts_of(clip) for clip in found] == [facts_of(clip) for clip in expected]
    for clip, other in zip(found, expected, strict=True):
        assert clip.landmarks.tobytes() == other.landmarks.tobytes()


@pytest.fixture
def cache(tmp_path) -> ClipCache:
    return ClipCache(tmp_path / "cache")


def test_what_was_stored_is_found_to_the_bit(cache):
    stored = cache.store(KEY, iter(CLIPS), {"source": "here"})
    found = cache.find(KEY)

    assert found is not None
    assert_same_clips(stored, CLIPS)
    assert_same_clips(found, CLIPS)
    assert found.file.facts == {"source": "here", "num_clips": 4, "num_frames": 11}
    assert cache.find(OTHER) is None


def test_a_set_larger_than_a_batch_of_rows_is_found(cache):
    clips = [clip_of(number, 1 + number % 3) for number in range(2500)]

    cache.store(KEY, clips, {})

    assert_same_clips(cache.find(KEY), clips)


def test_stored_clips_are_a_sequence_in_any_order(cache):
    stored = cache.store(KEY, CLIPS, {})
    some = stored.select(np.array([3, 0, 3]))

    assert isinstance(some, StoredClips)
    assert len(some) == 3
    assert_same_clips(some, [CLIPS[3], CLIPS[0], CLIPS[3]])
    assert_same_clips([some[-2]], [CLIPS[0]])
    assert_same_clips([some[np.int64(1)]], [CLIPS[0]])
    assert_same_clips(some[1:], [CLIPS[0], CLIPS[3]])
    assert_array_equal(some.lengths, [5, 3, 5])
    assert some.digests[0] == some.digests[2] != some.digests[1]
    assert_same_clips(some.select(np.array([1])), [CLIPS[0]])
    with pytest.raises(IndexError):
        some[3]


def test_landmarks_are_views_of_the_file_that_nobody_can_change(cache):
    stored = cache.store(KEY, CLIPS, {})

    first = stored[0].landmarks

    assert np.shares_memory(first, stored.file.frames)
    assert not first.flags.writeable


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "other file", "longer"])
def test_a_damaged_file_is_removed_and_never_used(cache, damage):
    cache.store(KEY, CLIPS, {})
    (path,) = cache.clips_dir.iterdir()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # one bit of one landmark
    path.write_bytes(
        {
            "cut": path.read_bytes()[:-9],
            "empty": b"",
            "bit": bytes(content),
            "other file": b"PAR1" * 100,
            "longer": path.read_bytes() + b"\0",
        }[damage]
    )

    assert cache.find(KEY) is None
    assert not path.exists()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(cache):
    cache.store(KEY, CLIPS, {})
    (path,) = cache.clips_dir.iterdir()
    path.unlink()
    os.mkfifo(path)

    assert [entry.facts for entry in cache.entries()] == [None]
    assert cache.find(KEY) is None
    assert not path.exists()


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 1.0])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, share):
    path = tmp_path / "file"
    write_clip_file(path, CLIPS, {"source": "here"})
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0b100
    path.write_bytes(content)

    with pytest.raises(DamagedFile):
        map_clip_file(path)


def test_a_failure_while_writing_leaves_nothing(cache):
    def broken():
        yield CLIPS[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        cache.store(KEY, broken(), {})

    assert list(cache.clips_dir.iterdir()) == []


def test_files_that_were_not_used_for_longest_make_room(cache, tmp_path):
    write_clip_file(tmp_path / "file", CLIPS, {})
    small = ClipCache(cache.folder, gigabytes=2.5e-9 * (tmp_path / "file").stat().st_size)
    keys = [letter * 32 for letter in "cdef"]
    for age, key in zip((30, 20, 10), keys, strict=False):
        cache.store(key, CLIPS, {})
        used = time.time() - age
        os.utime(cache.clips_dir / f"{key}.clips", (used, used))
    cache.find(keys[0])  # now the last used of all

    small.store(keys[3], CLIPS, {})

    kept = {entry.key for entry in small.entries()}
    assert kept == {keys[0], keys[3]}


def test_what_was_written_last_stays_even_if_it_is_too_large(cache):
    tiny = ClipCache(cache.folder, gigabytes=0.0)

    tiny.store(KEY, CLIPS, {})
    tiny.store(OTHER, CLIPS, {})

    assert [entry.key for entry in tiny.entries()] == [OTHER]


def test_what_a_killed_writer_left_goes_when_it_is_old(cache):
    cache.clips_dir.mkdir(parents=True)
    old, new = (cache.clips_dir / f"{KEY}.clips.{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half a clip")
    os.utime(old, (0, 0))

    cache.store(OTHER, CLIPS, {})

    assert cache.unfinished() == [new]


def test_clearing_removes_everything_but_what_is_not_ours(cache):
    stored = cache.store(KEY, CLIPS, {})
    cache.store(OTHER, CLIPS, {})
    (cache.clips_dir / "left.clips.0.part").write_bytes(b"12345")
    mine = cache.clips_dir / "notes.txt"
    mine.write_text("mine")

    count, num_bytes = cache.clear()

    assert count == 3
    assert num_bytes > 2 * stored.file.frames.nbytes
    assert list(cache.clips_dir.iterdir()) == [mine]
    assert_same_clips(stored, CLIPS)  # whoever has it open goes on


def test_a_folder_that_is_not_there_holds_nothing(cache):
    assert cache.find(KEY) is None
    assert cache.entries() == []
    assert cache.clear() == (0, 0)


def test_entries_tell_what_they_are(cache):
    cache.store(KEY, CLIPS, {"source": "a.csv", "kind": "cleaned"})
    Path(cache.clips_dir, f"{OTHER}.clips").write_bytes(b"damaged")
    os.utime(cache.clips_dir / f"{OTHER}.clips", (1, 1))

    first, second = cache.entries()

    assert (first.key, second.key, second.facts) == (KEY, OTHER, None)
    assert first.facts == {"source": "a.csv", "kind": "cleaned", "num_clips": 4, "num_frames": 11}
    assert first.num_bytes == (cache.clips_dir / f"{KEY}.clips").stat().st_size
