"""Checkpoints and run folders: what is saved comes back, and what is damaged is refused."""

import json
import pickle

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model import build_model
from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import (
    checkpoint_bytes,
    is_intact,
    is_whole,
    load_checkpoint,
    named_tensors,
    save_checkpoint,
)
from slrctl.runs.folder import check_run_dir, free_run_dir, newest_run
from slrctl.runs.load import load_run

CLASSES = ("0", "1", "2", "ünïcode <b>")


@pytest.fixture
def run_dir(tmp_path, tiny_settings):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    run_folder.start_run_dir(folder, tiny_settings, {"cores": 2})
    model = build_model(tiny_settings.model, len(CLASSES), seed=5)
    save_checkpoint(
        folder / run_folder.BEST, named_tensors(model=model), tiny_settings, CLASSES, {"epoch": 3}
    )
    return folder


def test_logits_are_equal_after_save_and_load(run_dir, tiny_settings, batch):
    model = build_model(tiny_settings.model, len(CLASSES), seed=5).eval()

    loaded = load_run(run_dir)

    assert torch.equal(loaded.model(batch).logits, model(batch).logits)
    assert loaded.settings == tiny_settings
    assert loaded.classes == CLASSES


def test_the_saved_settings_are_the_tree_that_was_resolved(run_dir, tiny_settings):
    layer = run_folder.read_settings(run_dir)

    assert type(tiny_settings).layered(layer) == tiny_settings


@pytest.mark.parametrize("padding", range(32))
def test_a_checkpoint_is_no_pickle_whatever_the_length_of_its_header(
    tmp_path, tiny_settings, padding
):
    path = tmp_path / "state.safetensors"
    weights = {"weights": torch.arange(3.0)}

    save_checkpoint(path, weights, tiny_settings, ("a" * 8 * padding,), {})

    assert torch.equal(load_checkpoint(path).tensors["weights"], weights["weights"])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(run_dir, share):
    path = run_dir / run_folder.BEST
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(DataError, match="damaged"):
        load_run(run_dir)


@pytest.mark.parametrize("name", ["best.safetensors", "model.pt", "model.pth"])
@pytest.mark.parametrize("in_an_archive", [False, True])
def test_a_pickle_is_refused_and_not_run(run_dir, tmp_path, name, in_an_archive):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    if in_an_archive:  # as torch.save writes it
        torch.save(Payload(), run_dir / name)
    else:
        (run_dir / name).write_bytes(pickle.dumps(Payload()))

    with pytest.raises(DataError, match="pickled file, which could run code"):
        load_run(run_dir / name)
    assert not (tmp_path / "ran").exists()


def damages(content):
    """Every truncation, and every byte with one of its bits turned."""
    for place in range(len(content)):
        yield content[:place]
        turned = content[place] ^ (1 << place % 8)
        yield content[:place] + bytes([turned]) + content[place + 1 :]


def test_every_turned_byte_and_every_truncation_of_a_checkpoint_is_noticed(tmp_path, tiny_settings):
    path, facts = tmp_path / "last.safetensors", (tiny_settings, CLASSES, {"epoch": 1})
    content = checkpoint_bytes({"a": torch.arange(6.0)}, *facts)
    unnoticed = [damaged for damaged in damages(content) if is_whole(damaged)]

    assert unnoticed == []
    assert is_whole(content)
    for damaged in [*list(damages(content))[::41], content + b" "]:
        path.write_bytes(damaged)
        assert not is_intact(path)
    path.write_bytes(content)
    assert is_intact(path)


def test_equal_states_give_equal_bytes(tmp_path, tiny_settings):
    tensors = {f"tensor {number}": torch.full((3,), number) for number in range(9)}
    written = {
        checkpoint_bytes(dict(order), tiny_settings, CLASSES, {"epoch": 1, "step": 2})
        for order in (tensors.items(), reversed(tensors.items()))
    }

    assert len(written) == 1


def test_a_damaged_best_model_is_refused_and_a_whole_one_named(run_dir, tiny_settings, batch):
    best, last = run_dir / run_folder.BEST, run_dir / run_folder.LAST
    last.write_bytes(best.read_bytes())
    logits = load_run(run_dir).model(batch).logits
    content = bytearray(best.read_bytes())
    content[-5] ^= 4
    best.write_bytes(content)

    with pytest.raises(DataError, match=f"best.safetensors: damaged .*; whole is {last}"):
        load_run(run_dir)
    assert torch.equal(load_run(last).model(batch).logits, logits)


FACTS = {
    "classes": [5, None, "abc", {}, ["a", 1]],
    "progress": [None, [1], "x", 5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FACTS.items() for value in values]
)
def test_facts_of_another_kind_under_a_right_checksum_are_refused(
    run_dir, tiny_settings, monkeypatch, name, value
):
    wrong = {name: value}
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda facts, **rest: dumps(facts | wrong, **rest))
    save_checkpoint(run_dir / run_folder.BEST, {}, tiny_settings, CLASSES, {})
    monkeypatch.undo()

    with pytest.raises(DataError, match="its metadata cannot be read"):
        load_run(run_dir)


def lacking(tensors):
    tensors.popitem()


def foreign(tensors):
    tensors["model.more"] = torch.ones(2)


def reshaped(tensors):
    tensors["model.classifier.bias"] = torch.zeros(1)


def retyped(tensors):
    tensors["model.classifier.bias"] = tensors["model.classifier.bias"].to(torch.int8)


def poisoned(tensors):
    tensors["model.classifier.bias"] = tensors["model.classifier.bias"] * float("nan")


@pytest.mark.parametrize("change", [lacking, foreign, reshaped, retyped, poisoned])
def test_tensors_that_are_not_the_models_are_refused(run_dir, tiny_settings, change):
    tensors = named_tensors(model=build_model(tiny_settings.model, len(CLASSES), seed=5))
    change(tensors)
    save_checkpoint(run_dir / run_folder.BEST, tensors, tiny_settings, CLASSES, {"epoch": 3})

    with pytest.raises(DataError, match="holds no model of its settings"):
        load_run(run_dir)


def test_settings_of_another_version_are_said_to_be_so(run_dir, tiny_settings, monkeypatch):
    later = tiny_settings.model_dump(mode="json") | {"telepathy": True}
    monkeypatch.setattr(type(tiny_settings), "model_dump", lambda self, mode: later)
    save_checkpoint(run_dir / run_folder.BEST, {}, tiny_settings, CLASSES, {})

    with pytest.raises(DataError, match="another version of slrctl"):
        load_run(run_dir)


def test_a_safetensors_file_of_somebody_else_is_refused(run_dir):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, run_dir / run_folder.BEST)

    with pytest.raises(DataError, match="not written by this slrctl"):
        load_run(run_dir)


def test_a_failed_write_leaves_the_last_checkpoint(run_dir, tiny_settings, monkeypatch):
    path = run_dir / run_folder.BEST
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {}, tiny_settings, CLASSES, {})

    assert path.read_bytes() == before
    assert [file.name for file in run_dir.iterdir() if file.suffix == ".safetensors"] == [path.name]


def test_tensors_and_progress_come_back(tmp_path, tiny_settings):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"a.b": torch.arange(6.0)}, tiny_settings, CLASSES, {"best": 0.25})

    checkpoint = load_checkpoint(path)

    assert_close(checkpoint.tensors, {"a.b": torch.arange(6.0)})
    assert checkpoint.progress == {"best": 0.25}


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_named(tmp_path, name):
    with pytest.raises(SlrctlError, match=r"not a run \(no settings\.toml\)"):
        load_run(tmp_path / name)


def test_the_newest_run_is_the_one_whose_best_was_written_last(run_dir, tiny_settings):
    import os

    other = run_dir.parent / "two"
    other.mkdir()
    run_folder.start_run_dir(other, tiny_settings, {})
    (other / run_folder.BEST).write_bytes((run_dir / run_folder.BEST).read_bytes())
    os.utime(run_dir / run_folder.BEST, ns=(1, 10))
    os.utime(other / run_folder.BEST, ns=(1, 20))

    assert newest_run(run_dir.parent) == other
    os.utime(run_dir / run_folder.BEST, ns=(1, 30))
    assert newest_run(run_dir.parent) == run_dir


def test_without_a_run_the_next_step_is_named(tmp_path):
    with pytest.raises(SlrctlError, match="train one with slrctl train"):
        newest_run(tmp_path / "runs")


def test_a_run_is_never_overwritten_without_force(run_dir):
    with pytest.raises(UsageError, match="--force"):
        check_run_dir(run_dir, force=False)
    check_run_dir(run_dir, force=True)


def test_a_folder_with_other_files_is_never_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="holds other files and is not a run"):
        check_run_dir(tmp_path, force=True)


def test_starting_again_removes_what_the_last_run_left(run_dir, tiny_settings):
    (run_dir / run_folder.METRICS).write_text("{}\n")
    (run_dir / "notes.txt").write_text("mine")

    run_folder.start_run_dir(run_dir, tiny_settings, {"cores": 8})

    assert not (run_dir / run_folder.METRICS).exists()
    assert not (run_dir / run_folder.BEST).exists()
    assert (run_dir / "notes.txt").read_text() == "mine"
    assert json.loads((run_dir / run_folder.ENVIRONMENT).read_text()) == {"cores": 8}


def test_names_that_are_taken_are_numbered(tmp_path):
    (tmp_path / "demo").mkdir()

    assert free_run_dir(tmp_path, "demo") == tmp_path / "demo-2"
    assert free_run_dir(tmp_path, "demo") == tmp_path / "demo-3"  # the one before is taken now
    assert free_run_dir(tmp_path, "other") == tmp_path / "other"
