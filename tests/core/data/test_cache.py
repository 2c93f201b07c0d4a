"""The cache of clips: what is stored, when it is found again, and what may go wrong."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips import content_of
from holistic_files import holistic, long_columns, vectors, write_frames, write_index, write_long
from numpy.testing import assert_array_equal
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data import cache as cache_module
from slrctl.core.data import dataset as dataset_module
from slrctl.core.data.cache import ClipCache, StoredClips, content_digest
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.prepare import RAW
from slrctl.errors import DataError
from slrctl.settings import DataSettings, PrepareSettings

KEY, OTHER = "a" * 32, "b" * 32
ABOUT = {"source": "a.csv", "kind": "cleaned"}


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


@pytest.fixture
def cache(tmp_path) -> ClipCache:
    return ClipCache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path) -> Path:
    frames = [np.concatenate([person(4 + n, n), np.zeros((3, 54, 2))]) for n in range(5)]
    return write_csv(tmp_path / "signs.csv", frames, [3, 1, 2, 1, 3])


@pytest.fixture
def readings(monkeypatch) -> list[Path]:
    """Every file that a reader was called for."""
    read, called = dataset_module.read_clips, []

    def counted(path, settings, classes):
        called.append(path)
        return read(path, settings, classes)

    monkeypatch.setattr(dataset_module, "read_clips", counted)
    return called


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once, so that their state is noted."""
    monkeypatch.setattr(cache_module, "_SETTLED_SECONDS", -10.0)


def assert_same_clips(found, expected) -> None:
    assert [content_of(clip) for clip in found] == [content_of(clip) for clip in expected]


def assert_same(found: SignDataset, expected: SignDataset) -> None:
    assert (found.classes, found.name, found.path, found.notes) == (
        expected.classes, expected.name, expected.path, expected.notes
    )  # fmt: skip
    assert found.fingerprint() == expected.fingerprint()
    assert_same_clips(found, expected)


# --- stored clips -------------------------------------------------------------------------------


MANY = [clip_of(number, 1 + number % 20) for number in range(2500)]


@pytest.mark.parametrize("clips", [CLIPS, MANY], ids=["a few", "several record batches"])
def test_stored_clips_are_found_to_the_bit(cache, clips):
    stored = cache.store(KEY, iter(clips), ABOUT)
    found = cache.find(KEY)

    assert found is not None
    assert found.about == ABOUT
    assert_same_clips(stored, clips)
    assert_same_clips(found, clips)
    assert cache.find(OTHER) is None


def test_stored_clips_are_a_sequence_in_any_order(cache):
    some = cache.store(KEY, CLIPS, ABOUT).select(np.array([3, 0, 3]))

    assert isinstance(some, StoredClips)
    assert len(some) == 3
    assert_same_clips(some, [CLIPS[3], CLIPS[0], CLIPS[3]])
    assert_same_clips([some[-2], some[np.int64(1)]], [CLIPS[0], CLIPS[0]])
    assert_same_clips(some[1:], [CLIPS[0], CLIPS[3]])
    assert_array_equal(some.lengths, [5, 3, 5])
    assert some.digests[0] == some.digests[2] != some.digests[1]
    assert_same_clips(some.select(np.array([1])), [CLIPS[0]])
    with pytest.raises(IndexError):
        some[3]


def copied_kilobytes(pid: int, mapped: str) -> int:
    """Memory that a process holds for itself, not shared, of files whose names contain this."""
    total, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if not line.endswith(" kB") and "VmFlags" not in line:
            is_ours = mapped in line
        elif is_ours and line.startswith("Anonymous:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is counted in /proc")
def test_processes_share_one_copy_of_the_landmarks_which_nobody_can_change(cache):
    stored = cache.store(KEY, [clip_of(0, 5000)], ABOUT)
    seen = float(np.nansum(stored[0].landmarks))

    child = os.fork()
    if child == 0:
        same = float(np.nansum(stored[0].landmarks)) == seen
        os._exit(0 if same and not copied_kilobytes(os.getpid(), ".arrow") else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert ".arrow" in Path("/proc/self/smaps").read_text()
    assert copied_kilobytes(os.getpid(), ".arrow") == 0
    assert not stored[0].landmarks.flags.writeable


def with_a_flipped_bit(content: bytes, share: float) -> bytes:
    place = int(share * (len(content) - 1))
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: b"",
        lambda content: b"PAR1" * 100,
        lambda content: content + b"\0",
        *(partial(with_a_flipped_bit, share=share) for share in (0.01, 0.3, 0.9, 1.0)),
    ],
)
def test_a_damaged_file_is_removed_and_never_used(cache, damage):
    cache.store(KEY, CLIPS, ABOUT)
    (path,) = cache.clips_dir.iterdir()
    path.write_bytes(damage(path.read_bytes()))

    assert cache.find(KEY) is None
    assert not path.exists()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(cache):
    cache.store(KEY, CLIPS, ABOUT)
    (path,) = cache.clips_dir.iterdir()
    path.unlink()
    os.mkfifo(path)

    assert [entry.clips for entry in cache.entries()] == [None]
    assert cache.find(KEY) is None
    assert not path.exists()


def test_a_failure_while_writing_leaves_nothing(cache):
    def broken():
        yield CLIPS[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        cache.store(KEY, broken(), ABOUT)

    assert list(cache.clips_dir.iterdir()) == []


# --- the folder ---------------------------------------------------------------------------------


def test_the_least_recently_used_files_make_room(cache):
    cache.store(KEY, CLIPS, ABOUT)
    size = cache.entries()[0].num_bytes
    cache.clear()
    keys = [letter * 32 for letter in "cdef"]
    for age, key in zip((30, 20, 10), keys, strict=False):
        cache.store(key, CLIPS, ABOUT)
        used = time.time() - age
        os.utime(cache.clips_dir / f"{key}.arrow", (used, used))
    cache.find(keys[0])  # now the most recently used

    ClipCache(cache.folder, gigabytes=2.5e-9 * size).store(keys[3], CLIPS, ABOUT)

    assert {entry.path.stem for entry in cache.entries()} == {keys[0], keys[3]}


def test_the_file_written_last_stays_even_if_it_is_too_large(cache):
    for key in (KEY, OTHER):
        ClipCache(cache.folder, gigabytes=0.0).store(key, CLIPS, ABOUT)

    assert [entry.path.stem for entry in cache.entries()] == [OTHER]


def test_unfinished_files_are_removed_when_they_are_old(cache):
    cache.clips_dir.mkdir(parents=True)
    old, new = (cache.clips_dir / f".{KEY}.{name}.arrow" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half a clip")
    os.utime(old, (0, 0))

    cache.store(OTHER, CLIPS, ABOUT)

    assert cache.unfinished() == [new]


def test_clearing_removes_everything_but_files_of_others(cache):
    stored = cache.store(KEY, CLIPS, ABOUT)
    cache.store(OTHER, CLIPS, ABOUT)
    (cache.clips_dir / f".{KEY}.0.arrow").write_bytes(b"12345")
    mine = cache.clips_dir / "notes.txt"
    mine.write_text("mine")

    count, num_bytes = cache.clear()

    assert count == 3
    assert num_bytes > 2 * sum(clip.landmarks.nbytes for clip in CLIPS)
    assert list(cache.clips_dir.iterdir()) == [mine]
    assert_same_clips(stored, CLIPS)  # a process that has it open can still use it


def test_entries_describe_the_files(cache):
    assert (cache.find(KEY), cache.entries(), cache.clear()) == (None, [], (0, 0))
    cache.store(KEY, CLIPS, ABOUT)
    Path(cache.clips_dir, f"{OTHER}.arrow").write_bytes(b"damaged")
    os.utime(cache.clips_dir / f"{OTHER}.arrow", (1, 1))

    first, second = cache.entries()

    assert first.clips is not None
    assert (first.path.stem, first.clips.about) == (KEY, ABOUT)
    assert_same_clips(first.clips, CLIPS)
    assert first.num_bytes == first.path.stat().st_size
    assert (second.path.stem, second.clips, second.used_seconds) == (OTHER, None, 1)


SLOW_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from slrctl.core.clip import Clip
from slrctl.core.data.cache import ClipCache

def slowly():
    for number in range(10_000):
        yield Clip(str(number), "a", np.zeros((9000, 54, 2), np.float32))
        if number == 3:
            print("writing", flush=True)
            time.sleep(60)

ClipCache(Path(sys.argv[1])).store("a" * 32, slowly(), {})
"""


def test_a_killed_writer_leaves_nothing_that_is_used(cache):
    arguments = [sys.executable, "-c", SLOW_WRITER, str(cache.folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)

    assert (cache.find(KEY), cache.entries(), len(cache.unfinished())) == (None, [], 1)
    assert cache.clear()[0] == 1


# --- a data set from the cache ------------------------------------------------------------------


def test_real_clips_are_the_same_with_and_without_the_cache(shared_data, cache):
    path = shared_data / "asl9.parquet"

    load_dataset(path, cache=cache)

    assert_same(load_dataset(path, cache=cache), load_dataset(path))


def test_a_folder_is_read_again_when_one_of_its_files_changes_or_moves(cache, tmp_path):
    folder = tmp_path / "signs"
    for clip in ("a", "b"):
        write_frames(folder / "book" / clip, vectors(holistic(2), with_face=False))
    frame = folder / "book" / "a" / "0.npy"
    sets = [load_dataset(folder, cache=cache) for _ in range(2)]
    np.save(frame, np.ones(258))
    sets.append(load_dataset(folder, cache=cache))
    frame.parent.rename(folder / "book" / "c")
    sets.append(load_dataset(folder, cache=cache))

    first, again, changed, moved = (dataset.fingerprint() for dataset in sets)
    assert first == again
    assert len({first, changed, moved}) == 3
    assert moved == load_dataset(folder).fingerprint()


def test_an_index_is_read_again_when_a_clip_beside_it_changes(cache, tmp_path):
    row = {"path": "1.parquet", "participant_id": 4, "sequence_id": 1, "sign": "book"}
    index = write_index(tmp_path, [row])
    fingerprints = []
    for num_frames in (2, 2, 3):
        write_long(tmp_path / "1.parquet", long_columns(holistic(num_frames)))
        fingerprints.append(load_dataset(index, cache=cache).fingerprint())

    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def copied(source: Path) -> Path:
    (source.parent / "elsewhere").mkdir()
    return Path(shutil.copy(source, source.parent / "elsewhere"))


def dated(source: Path) -> Path:
    os.utime(source, (1, 1))
    return source


def renamed(source: Path) -> Path:
    return source.rename(source.with_name("other.csv"))


def edited(source: Path) -> Path:
    source.write_text(source.read_text().replace("0.5", "0.6", 1))
    return source


def with_names(source: Path) -> Path:
    Path("names.json").write_text('{"1": "a", "2": "b", "3": "d"}')
    return source


def unchanged(source: Path) -> Path:
    return source


def raw(**changes: object) -> dict[str, PrepareSettings]:
    """Return as an argument preparation that keeps the cleaned clip, but for these changes."""
    return {"prepare": RAW.model_copy(update=changes)}


# A change of the source, further arguments of `load_dataset`, and whether a reader is called again.
CASES = {
    "nothing": (unchanged, {}, False),
    "place": (copied, {}, False),
    "date": (dated, {}, False),
    "name, which clip ids begin with": (renamed, {}, True),
    "content": (edited, {}, True),
    "frame size": (unchanged, {"settings": DataSettings(frame_size=(640, 480))}, True),
    "skipping": (unchanged, {"settings": DataSettings(skip_bad_clips=True)}, True),
    "names": (with_names, {"settings": DataSettings(gloss_names=Path("names.json"))}, True),
    "division": (unchanged, {"settings": DataSettings(test=Path("a"), val_share=0.3)}, False),
    "people": (unchanged, {"settings": DataSettings(val_signers=("ann",))}, False),
    "base of the labels": (unchanged, {"classes": ["0", "1", "2"]}, True),
    "rectified": (unchanged, raw(rectify=True), True),
    "mirrored": (unchanged, raw(dominant_hand="right"), True),
    "letterboxed": (unchanged, raw(letterbox=True), True),
    "trimmed": (unchanged, raw(trim_rest=True), True),
    "filled": (unchanged, raw(fill_gaps=2), True),
    "options that are off": (unchanged, raw(hand_box=1.5, rectify_alpha=1.0, num_frames=8), False),
}  # fmt: skip


@pytest.mark.parametrize(("change", "options", "is_read_again"), CASES.values(), ids=CASES)
def test_a_source_is_read_again_where_its_clips_would_differ(
    source, cache, readings, change, options, is_read_again, monkeypatch
):
    monkeypatch.chdir(source.parent)
    Path("names.json").write_text('{"1": "a", "2": "b", "3": "c"}')
    names = DataSettings(gloss_names=Path("names.json"))
    for settings in (DataSettings(), names) if change is with_names else (DataSettings(),):
        load_dataset(source, settings, cache=cache)
    readings.clear()
    path = change(source)

    first = load_dataset(path, cache=cache, **options)
    again = load_dataset(path, cache=cache, **options)

    assert len(readings) == is_read_again
    assert_same(first, load_dataset(path, **options))
    assert_same(again, first)
    assert isinstance(again.clips, StoredClips)


def test_other_code_reads_again(source, cache, readings, monkeypatch):
    load_dataset(source, cache=cache)
    monkeypatch.setattr(cache_module, "code_version", lambda: "another")

    load_dataset(source, cache=cache)

    assert len(readings) == 2


def test_a_file_that_cannot_be_read_is_the_same_error_and_is_not_stored(source, cache):
    source.write_text(source.read_text().replace("0.5", "x", 1))

    for _ in range(2):
        with pytest.raises(DataError, match="row 1"):
            load_dataset(source, cache=cache)
    with pytest.raises(DataError, match=r"nothing\.csv"):
        load_dataset(source.with_name("nothing.csv"), cache=cache)
    assert cache.entries() == []

    settings = DataSettings(skip_bad_clips=True)
    first = load_dataset(source, settings, cache=cache)
    assert any("1 of 5 clips" in note for note in first.notes)
    assert_same(load_dataset(source, settings, cache=cache), first)


# --- a cache that cannot be written to ----------------------------------------------------------


def assert_works_without(dataset: SignDataset, source: Path, reason: str) -> None:
    """The set is complete and in memory, and one line warns."""
    (warning,) = (note for note in dataset.notes if note.startswith("warning: "))
    assert reason in warning
    assert "data.cache_dir" in warning
    assert isinstance(dataset.clips, tuple)
    assert dataset.cache is None
    assert dataset.fingerprint() == load_dataset(source).fingerprint()


def test_a_file_changed_while_it_is_read_is_not_stored(source, cache, monkeypatch):
    read = dataset_module.read_clips

    def read_and_change(path, settings, classes):
        reading = read(path, settings, classes)
        path.write_text(path.read_text() + "\n")
        return reading

    monkeypatch.setattr(dataset_module, "read_clips", read_and_change)

    dataset = load_dataset(source, cache=cache)

    assert_works_without(dataset, source, "changed while it was read")
    assert cache.entries() == []


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 5,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("folder", "limit", "reason"),
    [("signs.csv/cache", nullcontext, errno.ENOTDIR), ("cache", small_files, errno.EFBIG)],
)
def test_a_cache_that_cannot_be_written_costs_a_warning_and_leaves_no_file(
    source, folder, limit, reason
):
    with limit():
        dataset = load_dataset(source, cache=ClipCache(source.parent / folder))

    assert_works_without(dataset, source, os.strerror(reason))
    assert [path for path in source.parent.rglob("*") if path.is_file()] == [source]


def test_a_read_only_folder_is_read_from(source, cache, readings, monkeypatch):
    before = load_dataset(source, cache=cache)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("utime", "replace"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)

    assert_same(load_dataset(source, cache=cache), before)
    assert len(readings) == 1


READER = """
import sys
from pathlib import Path
from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import load_dataset

sys.stdin.readline()  # so that all begin together
dataset = load_dataset(sys.argv[1], cache=ClipCache(Path(sys.argv[2])))
print(type(dataset.clips).__name__, dataset.fingerprint(), flush=True)
"""


def test_two_processes_that_write_at_once_both_succeed(source, cache):
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(source), str(cache.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()

    answers = {reader.communicate()[0].strip() for reader in readers}

    assert answers == {f"StoredClips {load_dataset(source).fingerprint()}"}
    assert len(cache.entries()) == 1
    assert cache.unfinished() == []


# --- the hash of a source's content -------------------------------------------------------------


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


def test_a_change_that_keeps_size_and_date_is_noticed(source, notes, settled):
    source.write_bytes(b"labels,nose_X\n")
    before, state = content_digest(source, notes), source.stat()
    time.sleep(0.05)  # longer than a tick of the clock

    source.write_bytes(b"labels,nose_Y\n")
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert (source.stat().st_size, source.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert content_digest(source, notes) != before


def test_unchanged_files_are_not_read_again(source, notes, settled, monkeypatch):
    before = content_digest(source, notes)
    monkeypatch.setattr(cache_module.hashlib, "file_digest", None)

    assert content_digest(source, notes) == before


def test_nothing_is_noted_of_a_file_that_has_just_changed(source, notes):
    content_digest(source, notes)

    assert not notes.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', "[" * 200_000, None])
def test_a_damaged_note_is_ignored(source, notes, settled, content):
    before = content_digest(source, notes)
    (note,) = notes.iterdir()
    note.unlink()
    if content is None:
        os.mkfifo(note)
    else:
        note.write_text(content)

    assert content_digest(source, notes) == before


def test_a_link_to_a_folder_above_ends(source, notes):
    folder = source.parent / "signs"
    folder.mkdir()
    source.rename(folder / "a.csv")
    before = content_digest(folder, notes)
    (folder / "round").symlink_to(folder, target_is_directory=True)

    assert content_digest(folder, notes) == before
