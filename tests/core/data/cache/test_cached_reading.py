import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data import cache as cached_reading
from slrctl.core.data import cache as keys
from slrctl.core.data.cache import ClipCache, StoredClips
from slrctl.core.data.dataset import SignDataset, canonical_dataset, load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings, PrepareSettings


@pytest.fixture
def cache(tmp_path) -> ClipCache:
    return ClipCache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path) -> Path:
    frames = [np.concatenate([person(4 + n, n), np.zeros((3, 54, 2))]) for n in range(5)]
    return write_csv(tmp_path / "signs.csv", frames, [3, 1, 2, 1, 3])


@pytest.fixture
def readings(monkeypatch) -> list[Path]:
    """Every file a reader was called for."""
    read, called = cached_reading.read_clips, []

    def counted(path, settings, classes):
        called.append(path)
        return read(path, settings, classes)

    monkeypatch.setattr(cached_reading, "read_clips", counted)
    return called


def facts_of(clip: Clip) -> tuple:
    return (
        clip.clip_id, clip.gloss, clip.signer, clip.session, clip.split, clip.fps, clip.aspect
    )  # fmt: skip


def assert_same(found: SignDataset, expected: SignDataset) -> None:
    assert (found.classes, found.name, found.path) == (
        expected.classes, expected.name, expected.path
    )  # fmt: skip
    assert found.notes == expected.notes
    assert found.fingerprint() == expected.fingerprint()
    assert [facts_of(clip) for clip in found] == [facts_of(clip) for clip in expected]
    assert [clip.landmarks.tobytes() for clip in found] == [
        clip.landmarks.tobytes() for clip in expected
    ]


def test_a_set_is_the_same_with_and_without_the_cache(source, cache, readings):
    plain = load_dataset(source)
    first = load_dataset(source, cache=cache)
    second = load_dataset(source, cache=cache)

    assert plain.notes  # the padding that was cut, the base of the labels
    assert isinstance(second.clips, StoredClips)
    assert_same(first, plain)
    assert_same(second, plain)
    assert len(readings) == 2


def test_real_clips_are_the_same_with_and_without_the_cache(shared_data, cache):
    path = shared_data / "asl9.parquet"

    load_dataset(path, cache=cache)

    assert_same(load_dataset(path, cache=cache), load_dataset(path))


def test_a_folder_is_read_again_when_one_of_its_files_changes(shared_data, cache, tmp_path):
    folder = Path(shutil.copytree(shared_data / "mediapipe_258", tmp_path / "signs"))
    before = load_dataset(folder, cache=cache)
    assert_same(load_dataset(folder, cache=cache), before)
    first, second = sorted(folder.rglob("*.npy"))[:2]
    first.chmod(0o644)
    first.write_bytes(second.read_bytes())

    after = load_dataset(folder, cache=cache)

    assert after.fingerprint() != before.fingerprint()
    assert after.fingerprint() == load_dataset(folder).fingerprint()


def test_an_index_of_clips_is_read_again_when_a_clip_beside_it_changes(cache, tmp_path):
    index = tmp_path / "signs" / "train.csv"
    (index.parent / "clips").mkdir(parents=True)
    index.write_text("path,participant_id,sequence_id,sign\nclips/1.parquet,4,1,book\n")
    fingerprints = []
    for x in (0.25, 0.25, 0.5):
        (index.parent / "clips" / "1.parquet").write_bytes(long_parquet(x))
        fingerprints.append(load_dataset(index, cache=cache).fingerprint())

    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def long_parquet(x: float) -> bytes:
    """Two frames of a clip with one hand, in the long layout of the competition."""
    rows = [
        {"frame": frame, "type": kind, "landmark_index": index, "x": x, "y": 0.5, "z": 0.0}
        for frame in (1, 2)
        for kind, count in (("pose", 33), ("left_hand", 21), ("right_hand", 21), ("face", 468))
        for index in range(count)
    ]
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue().to_pybytes()


def test_a_copy_under_the_same_name_is_the_same_source(source, cache, readings, tmp_path):
    load_dataset(source, cache=cache)
    copy = tmp_path / "elsewhere" / source.name
    copy.parent.mkdir()
    copy.write_bytes(source.read_bytes())

    dataset = load_dataset(copy, cache=cache)

    assert len(readings) == 1
    assert dataset.path == copy


def test_another_name_is_another_source(source, cache):
    load_dataset(source, cache=cache)
    renamed = source.rename(source.with_name("other.csv"))

    assert load_dataset(renamed, cache=cache)[0].clip_id == "other:0"


def test_changed_content_is_read_again(source, cache):
    before = load_dataset(source, cache=cache)
    source.write_text(source.read_text().replace("0.5", "0.6", 1))

    after = load_dataset(source, cache=cache)

    assert after.fingerprint() != before.fingerprint()
    assert after.fingerprint() == load_dataset(source).fingerprint()


@pytest.mark.parametrize(
    "settings",
    [{"frame_size": (640, 480)}, {"skip_bad_clips": True}, {"gloss_names": "names.json"}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_change_what_is_read_are_part_of_the_key(
    source, cache, readings, settings, tmp_path
):
    (tmp_path / "names.json").write_text('{"1": "a", "2": "b", "3": "c"}')
    if "gloss_names" in settings:
        settings = {"gloss_names": tmp_path / "names.json"}
    load_dataset(source, cache=cache)

    load_dataset(source, DataSettings(**settings), cache=cache)

    assert len(readings) == 2


def test_the_content_of_the_file_of_gloss_names_counts(source, cache, tmp_path):
    settings = DataSettings(gloss_names=tmp_path / "names.json")
    (tmp_path / "names.json").write_text('{"1": "a", "2": "b", "3": "c"}')
    load_dataset(source, settings, cache=cache)
    (tmp_path / "names.json").write_text('{"1": "a", "2": "b", "3": "d"}')

    assert load_dataset(source, settings, cache=cache).classes == ("a", "b", "d")


def test_settings_about_other_files_are_not_part_of_the_key(source, cache, readings, tmp_path):
    load_dataset(source, DataSettings(train=source, val=tmp_path / "a"), cache=cache)

    load_dataset(source, DataSettings(test=source, val_share=0.3), cache=cache)

    assert len(readings) == 1


def test_labels_read_for_other_classes_are_not_mixed_up(source, cache):
    alone = load_dataset(source, cache=cache)
    beside = load_dataset(source, classes=["0", "1", "2"], cache=cache)
    again = load_dataset(source, classes=["0", "1", "2"], cache=cache)

    assert [clip.gloss for clip in alone] == ["3", "1", "2", "1", "3"]
    assert [clip.gloss for clip in beside] == ["2", "0", "1", "0", "2"]
    assert_same(again, beside)


def test_other_code_reads_again(source, cache, readings, monkeypatch):
    load_dataset(source, cache=cache)
    monkeypatch.setattr(keys, "code_version", lambda: "another")

    load_dataset(source, cache=cache)

    assert len(readings) == 2


@pytest.mark.parametrize(
    "options", [{"rectify": True}, {"rectify": True, "rectify_alpha": 1.0},
                {"dominant_hand": "right"}, {"rectify": True, "dominant_hand": "right"}]
)  # fmt: skip
def test_clips_are_kept_in_the_canonical_form_of_the_settings(source, cache, options):
    plain, prepare = load_dataset(source, cache=cache), PrepareSettings(**options)

    for _ in range(2):
        dataset = load_dataset(source, prepare=prepare, cache=cache)
        assert isinstance(dataset.clips, StoredClips)
        assert dataset.fingerprint() == canonical_dataset(plain, prepare).fingerprint()
        assert dataset.fingerprint() != plain.fingerprint()


def test_with_all_options_off_one_file_serves_everybody(source, cache, readings):
    load_dataset(source, cache=cache)

    load_dataset(source, prepare=PrepareSettings(hand_box=1.5, rectify_alpha=1.0), cache=cache)

    assert len(readings) == 1


def test_a_file_that_cannot_be_read_says_so_as_ever_and_is_not_kept(source, cache):
    source.write_text(source.read_text().replace("0.5", "x", 1))

    for _ in range(2):
        with pytest.raises(DataError, match="row 1"):
            load_dataset(source, cache=cache)
    with pytest.raises(DataError, match="is not there"):
        load_dataset(source.with_name("nothing.csv"), cache=cache)

    assert cache.entries() == []


def test_dropped_clips_are_told_of_from_the_cache_too(source, cache):
    source.write_text(source.read_text().replace("0.5", "x", 1))
    settings = DataSettings(skip_bad_clips=True)

    first = load_dataset(source, settings, cache=cache)

    assert any("left out 1 of 5 clips" in note for note in first.notes)
    assert_same(load_dataset(source, settings, cache=cache), first)


def test_a_damaged_file_of_the_cache_is_read_again(source, cache):
    before = load_dataset(source, cache=cache).fingerprint()
    (path,) = cache.clips_dir.iterdir()
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)

    assert load_dataset(source, cache=cache).fingerprint() == before
    assert load_dataset(source, cache=cache).fingerprint() == before


def assert_works_without(dataset: SignDataset, source: Path, reason: str) -> None:
    """The set is whole and in memory, and one line warns."""
    (warning,) = (note for note in dataset.notes if note.startswith("warning: "))
    assert reason in warning
    assert "data.cache_dir" in warning
    assert isinstance(dataset.clips, tuple)
    assert dataset.cache is None
    assert dataset.fingerprint() == load_dataset(source).fingerprint()


def test_a_file_changed_while_it_is_read_is_not_kept(source, cache, monkeypatch):
    read = cached_reading.read_clips

    def read_and_change(path, settings, classes):
        reading = read(path, settings, classes)
        path.write_text(path.read_text() + "\n")
        return reading

    monkeypatch.setattr(cached_reading, "read_clips", read_and_change)

    dataset = load_dataset(source, cache=cache)

    assert_works_without(dataset, source, "changed while it was read")
    assert cache.entries() == []


def test_a_folder_that_cannot_be_made_costs_a_warning(source, tmp_path):
    (tmp_path / "file").write_text("in the way")

    dataset = load_dataset(source, cache=ClipCache(tmp_path / "file" / "cache"))

    assert_works_without(dataset, source, "Not a directory")


def test_a_full_disk_costs_a_warning_and_leaves_no_file(source, cache):
    """A limit on the size of files stands in for it: writing fails in the middle of a clip."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        dataset = load_dataset(source, cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert_works_without(dataset, source, os.strerror(errno.EFBIG))
    assert list(cache.clips_dir.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs more rights than we have here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def test_a_disk_that_is_really_full_does_too(tmp_path, small_disk):
    clips = [Clip(f"{n}", "ab"[n % 2], person(9, n).astype(np.float32)) for n in range(40)]
    source = tmp_path / "signs.parquet"
    write_parquet(clips, source)

    dataset = load_dataset(source, cache=ClipCache(small_disk))

    assert_works_without(dataset, source, os.strerror(errno.ENOSPC))
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def test_a_folder_that_may_only_be_read_is_read_from(source, cache, readings, monkeypatch):
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


def start_reader(source: Path, cache: ClipCache) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(source), str(cache.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_write_at_once_both_succeed(source, cache):
    readers = [start_reader(source, cache) for _ in range(2)]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()

    answers = {reader.communicate()[0].strip() for reader in readers}

    assert answers == {f"StoredClips {load_dataset(source).fingerprint()}"}
    assert len(cache.entries()) == 1
    assert cache.unfinished() == []


SLOW_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from slrctl.core.clip import Clip
from slrctl.core.data.cache import ClipCache

def slowly():
    for number in range(10_000):
        yield Clip(str(number), "a", np.zeros((900, 54, 2), np.float32))
        if number == 3:
            print("writing", flush=True)
            time.sleep(60)

ClipCache(Path(sys.argv[1])).store("a" * 32, slowly(), {})
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_used(cache):
    arguments = [sys.executable, "-c", SLOW_WRITER, str(cache.folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)

    assert cache.find("a" * 32) is None
    assert cache.entries() == []
    assert len(cache.unfinished()) == 1
    assert cache.clear()[0] == 1


def copied_kilobytes(pid: int, mapped: str) -> int:
    """Memory a process holds for itself of the files whose name contains this, no longer shared."""
    total, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if not line.endswith(" kB") and "VmFlags" not in line:
            is_ours = mapped in line
        elif is_ours and line.startswith("Anonymous:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is told of in /proc")
def test_a_process_that_reads_holds_no_copy_of_the_file(source, cache):
    load_dataset(source, cache=cache)
    dataset = load_dataset(source, cache=cache)
    seen = sum(float(np.nansum(clip.landmarks)) for clip in dataset)

    child = os.fork()
    if child == 0:
        same = sum(float(np.nansum(clip.landmarks)) for clip in dataset)
        os._exit(0 if same == seen and not copied_kilobytes(os.getpid(), ".clips") else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert ".clips" in Path("/proc/self/smaps").read_text()
    assert copied_kilobytes(os.getpid(), ".clips") == 0
