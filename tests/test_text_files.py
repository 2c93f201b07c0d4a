"""Small text files of strangers are read, or refused by an error that callers expect."""

import json
import os

import pytest

from slrctl.core.data.readers.labels import read_gloss_names
from slrctl.errors import DataError, UsageError
from slrctl.files import LARGEST_BYTES, parse_json, parse_toml, read_text
from slrctl.layers import Layer, read_config, read_overrides, resolve
from slrctl.studies.ablation.study import read_study

DEEP = "[" * 100_000


def test_a_file_is_read_as_it_is(tmp_path):
    (tmp_path / "a").write_bytes("ü\r\n".encode())

    assert read_text(tmp_path / "a") == "ü\r\n"


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfseed = 5")

    assert read_config(tmp_path / "a.toml").values == {"seed": 5}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="a pipe or a socket, and no file"):
        read_text(tmp_path / "pipe")


def test_what_is_too_large_for_any_settings_is_not_taken_in(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)

    with pytest.raises(OSError, match="holds more than 64 MB"):
        read_text(tmp_path / "large")


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
def test_values_within_values_without_end_are_no_text_of_ours(parse):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(DEEP if parse is parse_json else f"a = {DEEP}")


@pytest.mark.parametrize("text", ["{} = 1", "[{}]", "a = {{ {} = 1 }}", '{} = 1\n"b.c" = 2'])
def test_names_joined_by_dots_without_end_are_refused_before_they_are_read(text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(text.format(".".join(["a"] * 200_000)))


def test_dots_that_join_no_names_are_read():
    values = {"numbers": [0.5] * 500, "text": "Two words. " * 200, "path": "../" * 60}
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())

    assert parse_toml(text) == values


def test_a_setting_as_deep_as_none_is_refused():
    with pytest.raises(UsageError, match="no setting lies so deep"):
        read_overrides([".".join(["a"] * 20_000) + "=1"])


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_no_json(name):
    with pytest.raises(ValueError, match=f"{name} is not JSON"):
        parse_json(f"[{name}]")


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"seed = {'9' * 5000}", "a = \xff"])
@pytest.mark.parametrize("read", [read_config, read_study])
def test_settings_that_make_no_sense_are_refused_in_one_line(tmp_path, read, text):
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(UsageError, match="not a TOML file") as caught:
        read(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "assignment",
    [
        "model.ffn_dim=9223372036854775807",
        "model.num_encoder_layers=1000000000",
        "train.accumulate=100000000000",
        f"train.epochs={'9' * 5000}",
    ],
)
def test_numbers_beyond_all_measure_are_refused(assignment):
    with pytest.raises(UsageError):
        resolve(read_overrides([assignment]))


def test_a_nul_is_in_no_setting():
    for key, value in {"cache_dir": "a\0b", "train_signers": ["ann", "b\0b"]}.items():
        with pytest.raises(UsageError, match=rf"data\.{key} holds a NUL"):
            resolve([Layer("config x", {"data": {key: value}})])


def test_gloss_names_within_names_without_end_are_refused(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(DEEP)

    with pytest.raises(DataError, match="is not JSON"):
        read_gloss_names(path)
