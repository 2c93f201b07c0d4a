"""Small texts are read or refused in one line; files are written whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from slrctl.errors import DataError, UsageError
from slrctl.files import (
    LARGEST_BYTES,
    append_line,
    parse_json,
    parse_toml,
    read_json,
    read_text,
    read_toml,
    replacing,
    user_cache_folder,
)


def test_the_new_content_takes_the_place_of_the_old_when_the_block_ends(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]
    # A rename is atomic within one folder; some writers choose their format by the suffix.
    assert (temporary.parent, temporary.suffix) == (tmp_path, ".csv")


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_a_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            if failure is not FileNotFoundError:  # which is raised where nothing was written
                temporary.write_text("half of the n")
                raise failure

    with pytest.raises(failure):
        write()

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "table.csv"

    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")

    assert first != second
    assert path.read_text() == "first"  # the outer block ends last


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

    assert calls == ["file", "rename", "folder"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "replaced") as temporary:
        temporary.touch()

    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode


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


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_is_read_as_it_is_but_without_a_byte_order_mark(tmp_path, mark):
    (tmp_path / "a").write_bytes(mark + "ü\r\n".encode())

    assert read_text(tmp_path / "a") == "ü\r\n"


def make_large(path):
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)


@pytest.mark.parametrize("read", [read_toml, read_json])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "a pipe"),  # it would be waited for
        (make_large, "64 MB"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "utf-8"),
        (lambda path: path.write_text("not at all"), "not a"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, read, make, reason):
    make(tmp_path / "file")

    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path / "file")

    assert str(caught.value).startswith(f"{tmp_path / 'file'}: ")
    assert "\n" not in str(caught.value)


DEEP = "[" * 100_000
KEYS = ".".join(["a"] * 200_000)
QUOTED = ".".join(['"a b"'] * 200_000)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_json, DEEP),
        (parse_toml, f"a = {DEEP}"),
        (parse_toml, f"{KEYS} = 1"),
        (parse_toml, f"[{KEYS}]"),
        (parse_toml, f"a = {{ {KEYS} = 1 }}"),
        (parse_toml, f'{KEYS} = 1\n"b.c" = 2'),
        (parse_toml, f"{QUOTED} = 1"),
    ],
    ids=lambda value: str(value)[:8] if isinstance(value, str) else value.__name__,
)
def test_text_that_is_nested_too_deeply_is_refused_in_little_memory(parse, text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(text)


def test_dots_that_join_no_keys_are_read():
    values = {"numbers": [0.5] * 500, "text": "Two words. " * 200, "path": "../" * 60}
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())

    assert parse_toml(text) == values


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_not_json(name):
    with pytest.raises(ValueError, match=name):
        parse_json(f"[{name}]")


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert user_cache_folder() == tmp_path / "slrctl"


def test_lines_are_appended_and_never_through_a_link(tmp_path):
    append_line(tmp_path / "lines", {"a": "ü"})
    append_line(tmp_path / "lines", {"b": 2})
    (tmp_path / "link").symlink_to("lines")

    with pytest.raises(OSError, match="link"):
        append_line(tmp_path / "link", {"c": 3})

    assert (tmp_path / "lines").read_text() == '{"a": "ü"}\n{"b": 2}\n'
