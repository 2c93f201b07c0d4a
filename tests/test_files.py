import os
import stat

import pytest

from slrctl.errors import UsageError
from slrctl.files import replacing


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    with replacing(path) as temporary:
        temporary.write_text("new")

    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_the_old_content_is_there_until_the_block_has_ended(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    with replacing(path) as temporary:
        temporary.write_text("new")
        seen_meanwhile = path.read_text()

    assert seen_meanwhile == "old"


def write_half(path, failure):
    with replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise failure


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("old")

    with pytest.raises(failure):
        write_half(path, failure)

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_the_temporary_file_is_a_neighbour_with_the_same_suffix(tmp_path):
    with replacing(tmp_path / "curves.png") as temporary:
        temporary.touch()

    assert temporary.parent == tmp_path
    assert temporary.suffix == ".png"


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "table.csv"

    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")

    assert first != second
    assert path.read_text() == "first"  # the outer block ends last


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "table.csv"):
        pass


def test_the_content_is_on_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def rename(source, target):
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")

    assert calls[:2] == ["file", "rename"]
    assert os.name != "posix" or calls == ["file", "rename", "folder"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX idea")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with replacing(tmp_path / "replaced") as temporary:
        temporary.touch()

    assert (tmp_path / "replaced").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_pipe_is_not_replaced_by_a_file(tmp_path, is_linked):
    """Nor is a device: a rename over /dev/null would take it from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if is_linked else pipe
    if is_linked:
        path.symlink_to(pipe)

    with pytest.raises(UsageError, match="is a device, a pipe or a socket"), replacing(path):
        pytest.fail("it was written to")

    assert stat.S_ISFIFO(path.stat().st_mode)
