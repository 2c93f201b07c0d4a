import os
import time

import pytest

from slrctl.core.data import cache as content
from slrctl.core.data.cache import content_digest, files_of, state_of


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "signs.csv"
    path.write_bytes(b"labels,nose_X\n")
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "signs"
    for name in ("book/b/0.npy", "book/a/1.npy", "tree/a/0.npy"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once, so that their state is noted."""
    monkeypatch.setattr(content, "_SETTLED_SECONDS", -10.0)


def test_the_content_decides_and_not_the_date(source, notes):
    before = content_digest(source, notes)

    os.utime(source, (1, 1))
    assert content_digest(source, notes) == before
    source.write_bytes(b"labels,nose_Y\n")
    assert content_digest(source, notes) != before


def test_a_change_that_keeps_size_and_date_is_seen(source, notes, settled):
    before, state = content_digest(source, notes), source.stat()
    time.sleep(0.05)  # longer than a tick of the clock

    source.write_bytes(b"labels,nose_Y\n")
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert source.stat().st_size == state.st_size
    assert source.stat().st_mtime_ns == state.st_mtime_ns
    assert content_digest(source, notes) != before


def test_files_that_did_not_change_are_not_read_again(source, notes, settled, monkeypatch):
    before = content_digest(source, notes)

    def refuse(_: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(content, "_hash_content", refuse)

    assert content_digest(source, notes) == before


def test_nothing_is_noted_of_a_file_that_has_just_changed(source, notes):
    content_digest(source, notes)

    assert not notes.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', "[" * 200_000])
def test_a_damaged_note_is_as_good_as_none(source, notes, settled, content):
    before = content_digest(source, notes)
    (note,) = notes.iterdir()
    note.write_text(content)

    assert content_digest(source, notes) == before


def test_a_pipe_in_the_place_of_a_note_is_not_waited_for(source, notes, settled):
    before = content_digest(source, notes)
    (note,) = notes.iterdir()
    note.unlink()
    os.mkfifo(note)

    assert content_digest(source, notes) == before


def test_without_a_place_for_notes_the_digest_is_the_same(source, notes, settled, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    assert content_digest(source, blocked / "notes") == content_digest(source, notes)


def test_a_folder_is_all_its_files_by_place_and_content(folder, notes):
    before = content_digest(folder, notes)
    (folder / "tree/a/0.npy").rename(folder / "tree/a/1.npy")
    renamed = content_digest(folder, notes)
    (folder / "tree/a/1.npy").write_bytes(b"other")
    changed = content_digest(folder, notes)
    (folder / "tree/a/1.npy").unlink()

    assert len({before, renamed, changed, content_digest(folder, notes)}) == 4


def test_files_of_a_folder_come_in_a_stable_order(folder):
    names = [str(path.relative_to(folder)) for path in files_of(folder)]

    assert names == ["book/a/1.npy", "book/b/0.npy", "tree/a/0.npy"]


def test_links_that_lead_back_end(folder):
    (folder / "tree" / "round").symlink_to(folder, target_is_directory=True)

    assert len(list(files_of(folder))) == 3


def test_the_state_shows_another_file_in_the_same_place(source):
    before = state_of(source)
    copy = source.with_name("copy")
    copy.write_bytes(source.read_bytes())
    state = source.stat()
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
    copy.replace(source)

    assert state_of(source).digest != before.digest


def test_a_file_that_is_not_there_is_an_error(tmp_path, notes):
    with pytest.raises(FileNotFoundError):
        content_digest(tmp_path / "nothing.csv", notes)
