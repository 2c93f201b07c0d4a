"""`slrctl data cache`, and what the cache does for `slrctl train` and `evaluate`."""

import json
from pathlib import Path

import pytest
from calls import TINY, call, plain
from safetensors.torch import load_file
from torch.testing import assert_close


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call slrctl in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return call


def info(run, *options: object) -> dict:
    return json.loads(run("data", "cache", "--info", "--json", *options).stdout)


@pytest.mark.slow
def test_a_training_is_the_same_to_the_bit_with_and_without_the_cache(run, tiny_path):
    for name, options in {
        "without": ["--set=data.cache=false"],
        "filling": [],
        "filled": [],
    }.items():
        result = run("train", "--train", tiny_path, "--name", name, *TINY, *options)
        assert result.exit_code == 0, result.output

    folders = {path.name for path in Path("user/slrctl/clips").iterdir()}
    assert len(folders) == 1  # the clips of the file
    expected = load_file("runs/without/last.safetensors")
    data = json.loads(Path("runs/without/environment.json").read_text())["data"]
    for name in ("filling", "filled"):
        assert_close(load_file(f"runs/{name}/last.safetensors"), expected, rtol=0, atol=0)
        assert json.loads(Path(f"runs/{name}/environment.json").read_text())["data"] == data


def test_an_evaluation_is_the_same_with_and_without_the_cache(run, tiny_path):
    run("train", "--train", tiny_path, "--name", "one", *TINY)

    answers = [
        run("evaluate", "runs/one", "--data", tiny_path, "--json", *options).stdout
        for options in (["--set=data.cache=false"], [], [])
    ]

    assert json.loads(answers[0])["clips"] == 4
    assert answers[1:] == answers[:1] * 2


def test_the_cache_shows_what_is_kept_and_is_cleared(run, tiny_path):
    run("train", "--train", tiny_path, "--dry-run", *TINY)

    shown, before = run("data", "cache"), info(run)
    (cleaned,) = before["entries"]
    cleared = json.loads(run("data", "cache", "--clear", "--json").stdout)

    assert shown.exit_code == 0
    assert "tiny.parquet" in plain(shown).replace("\n", "")
    assert (cleaned["kind"], cleaned["clips"], cleaned["source"]) == (
        "cleaned",
        16,
        str(tiny_path),
    )
    folder = str(Path("user/slrctl").absolute())
    assert cleared == {"folder": folder, "files": 1, "bytes": before["bytes"]}
    assert info(run)["entries"] == []
    assert plain(run("data", "cache")).strip().startswith("0 files, 0.0 MB of 20 GB in ")


def test_the_folder_can_be_chosen(run, tiny_path):
    option = "--set=data.cache_dir=mine"

    run("train", "--train", tiny_path, "--dry-run", *TINY, option)

    assert len(info(run, option)["entries"]) == 1
    assert not Path("user").exists()


def test_a_full_cache_folder_costs_one_warning(run, tiny_path, tmp_path):
    (tmp_path / "file").write_text("in the way")
    option = f"--set=data.cache_dir={tmp_path / 'file'}"

    result = run("train", "--train", tiny_path, "--val", tiny_path, "--dry-run", *TINY, option)

    assert result.exit_code == 0, result.output
    assert plain(result).count("warning: not cached") == 1
