"""Checkpoints and run folders: what is saved comes back, and what is damaged is refused."""

import json
import math
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from slrctl.core.model.build import build_model
from slrctl.errors import DataError, SlrctlError
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import (
    checkpoint_bytes,
    is_intact,
    load_checkpoint,
    load_run,
    named_tensors,
    save_checkpoint,
)

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


@pytest.mark.parametrize("padding", range(32))
def test_tensors_and_progress_come_back_whatever_the_length_of_the_header(
    tmp_path, tiny_settings, padding
):
    path = tmp_path / "state.safetensors"
    classes = ("a" * 8 * padding,)  # a length may begin like a pickle
    save_checkpoint(path, {"a.b": torch.arange(3.0)}, tiny_settings, classes, {"loss": math.inf})

    tensors, settings, *facts = load_checkpoint(path)

    assert_close(tensors, {"a.b": torch.arange(3.0)})
    assert (settings, *facts) == (tiny_settings, classes, {"loss": math.inf})


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
    """Every byte with one of its bits flipped, and truncations."""
    for place in range(len(content)):
        if place % 9 == 0:
            yield content[:place]
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


def test_every_flipped_bit_and_a_truncation_of_a_checkpoint_is_noticed(tmp_path, tiny_settings):
    path = tmp_path / "last.safetensors"
    tensors = {"a": torch.arange(6.0), "b": torch.arange(6.0) + 1}
    content = checkpoint_bytes(tensors, tiny_settings, CLASSES, {"epoch": 1})

    def is_noticed(damaged):
        path.write_bytes(damaged)
        return not is_intact(path)

    assert [damaged for damaged in damages(content) if not is_noticed(damaged)] == []
    assert is_noticed(content + b" ")
    assert not is_noticed(content)


def test_equal_states_give_equal_bytes(tiny_settings):
    tensors = {f"tensor {number}": torch.full((3,), number) for number in range(9)}
    backwards = dict(reversed(tensors.items()))

    first, second = (
        checkpoint_bytes(order, tiny_settings, CLASSES, {"epoch": 1, "step": 2})
        for order in (tensors, backwards)
    )

    assert first == second


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


@pytest.mark.parametrize(
    "wrong",
    [
        *({"classes": value} for value in (5, None, "abc", {}, ["a", 1])),
        *({"progress": value} for value in (None, [1], "x", 5)),
        {"settings": {"telepathy": True}},
        {"more": 1},
    ],
)
def test_metadata_of_another_kind_under_a_right_checksum_is_refused(
    run_dir, tiny_settings, monkeypatch, wrong
):
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda facts, **rest: dumps(facts | wrong, **rest))
    save_checkpoint(run_dir / run_folder.BEST, {}, tiny_settings, CLASSES, {})
    monkeypatch.undo()

    with pytest.raises(DataError, match="another version of slrctl"):
        load_run(run_dir)


BIAS = "model.classifier.bias"


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.popitem(),
        lambda tensors: tensors.update({"model.more": torch.ones(2)}),
        lambda tensors: tensors.update({BIAS: torch.zeros(1)}),
        lambda tensors: tensors.update({BIAS: tensors[BIAS].to(torch.int8)}),
        lambda tensors: tensors.update({BIAS: tensors[BIAS] * math.nan}),
    ],
    ids=["lacking", "foreign", "reshaped", "retyped", "not finite"],
)
def test_tensors_that_are_not_the_models_are_refused(run_dir, tiny_settings, change):
    tensors = named_tensors(model=build_model(tiny_settings.model, len(CLASSES), seed=5))
    change(tensors)
    save_checkpoint(run_dir / run_folder.BEST, tensors, tiny_settings, CLASSES, {"epoch": 3})

    with pytest.raises(DataError, match="holds no model of its settings"):
        load_run(run_dir)


def test_a_safetensors_file_of_somebody_else_is_refused(run_dir):
    save_file({"weight": torch.ones(2)}, run_dir / run_folder.BEST)

    with pytest.raises(DataError, match="not written by slrctl"):
        load_run(run_dir)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_named(tmp_path, name):
    with pytest.raises(SlrctlError, match=str(tmp_path / name)):
        load_run(tmp_path / name)
