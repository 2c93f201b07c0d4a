"""`slrctl inspect-attention` as a user meets it."""

import csv
import json
import math
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from calls import call, plain
from numpy.testing import assert_allclose
from plain_siformer import classify
from safetensors.numpy import load_file

from slrctl.core.data.batches import clip_batch
from slrctl.core.data.prepare import prepare_clip
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.runs.checkpoint import load_run
from slrctl.settings import PrepareSettings

TINY = [
    "--set=evaluate.resamples=100",
    "--epochs=1",
    "--batch-size=4",
    "--quiet",
]
PUBLISHED = [
    "--set=recipe=siformer",
    "--set=model.ffn_dim=16",
    "--set=model.num_encoder_layers=2",
    "--set=model.num_decoder_layers=1",
]
DEFAULT = ["--set=model.embed_dim=16", "--set=model.joint_dim=16"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_dataset):
    """A folder with clips and runs; tests write elsewhere."""
    folder = tmp_path_factory.mktemp("inspect")
    write_parquet(tiny_dataset, folder / "tiny.parquet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, *options in (
            ("default", *DEFAULT),
            ("full", *PUBLISHED, "--cmcl=balanced"),
            ("alone", *PUBLISHED, "--no-cross-attention"),
            ("spoter", *PUBLISHED, "--set=model.name=spoter"),
            (
                "rectified",
                *PUBLISHED,
                "--set=prepare.rectify=true",
                "--set=prepare.dominant_hand=right",
            ),
        ):
            result = call("train", "--train=tiny.parquet", f"--name={name}", *options, *TINY)
            assert result.exit_code == 0, result.output
        os.utime("runs/full/best.safetensors")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(workplace, monkeypatch):
    """Call `slrctl inspect-attention` where the runs are."""
    monkeypatch.chdir(workplace)
    return partial(call, "inspect-attention")


def test_alone_it_shows_the_newest_run_on_a_validation_clip(run, workplace, tiny_dataset):
    result = run()

    assert result.exit_code == 0, result.output
    output = plain(result)
    assert "full, layer fusion" in output
    shown = [clip for clip in tiny_dataset if clip.split == "val" and clip.clip_id in output]
    assert len(shown) == 1
    for text in ("predicted", "probability", "left hand reads right hand", "from body", "(own)"):
        assert text in output
    assert "\x1b" not in result.output


def test_the_numbers_written_are_those_of_the_checkpoint(run, workplace, tmp_path, tiny_dataset):
    result = run("--format=json,npz", "--output", tmp_path)

    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("*.json")
    written = json.loads(path.read_text())
    clip = next(c for c in tiny_dataset if c.clip_id == written["clip"]["clip_id"])
    tensors = {
        name.removeprefix("model."): value.astype(np.float64)
        for name, value in load_file(workplace / "runs/full/best.safetensors").items()
    }
    prepared = prepare_clip(clip.landmarks, PrepareSettings())
    logits, maps, gates, norms, there = classify(
        prepared, tensors, load_run(workplace / "runs/full").settings
    )

    arrays = written["arrays"]
    _assert_close(arrays["logits"], logits)
    for name, weights in maps.items():
        _assert_close(arrays[f"fusion.{name}"], weights)
    for short, part in (("left", "left_hand"), ("right", "right_hand"), ("body", "body")):
        assert arrays[f"is_present.{part}"] == there[short].tolist()
        _assert_close(arrays[f"gates.{part}"], gates[short])
        _assert_close(arrays[f"norms.{part}"], norms[short])
    shares = np.exp(logits) / np.exp(logits).sum()
    assert written["prediction"]["gloss"] == written["classes"][int(shares.argmax())]
    _assert_close(written["prediction"]["probability"], shares.max())
    _check_numbers(written, maps, norms, there)


def test_the_maps_written_of_the_default_model_are_those_it_computes(
    run, workplace, tmp_path, tiny_dataset
):
    result = run("runs/default", "--format=json,npz", "--output", tmp_path)

    assert result.exit_code == 0, result.output
    (json_path,), (npz_path,) = tmp_path.glob("*.json"), tmp_path.glob("*.npz")
    clip_id = json.loads(json_path.read_text())["clip"]["clip_id"]
    loaded = load_run(workplace / "runs/default")
    clips = [clip for clip in tiny_dataset if clip.clip_id == clip_id]
    with torch.no_grad():
        output = loaded.model(
            clip_batch(clips, loaded.classes, loaded.settings), return_attention=True
        )
    with np.load(npz_path, allow_pickle=False) as arrays:
        assert_allclose(arrays["logits"], output.logits[0], rtol=1e-4, atol=1e-5)
        for name, weights in output.attention._asdict().items():
            assert_allclose(arrays[f"fusion.{name}"], weights[0], rtol=1e-4, atol=1e-6)
            assert weights.shape[-2:] == (32, 32)


def _assert_close(found, expected):
    """Float32 against float64 through a whole model."""
    assert_allclose(found, expected, rtol=2e-4, atol=2e-6)


def _check_numbers(written, maps, norms, there):
    """The derived numbers by plain loops over the recomputed maps."""
    for row, short in enumerate(("left", "right", "body")):
        frames = np.flatnonzero(there[short])
        shares = [norms[short][frame] / norms[short][frame].sum() for frame in frames]
        expected = [None] * 3 if not shares else np.mean(shares, axis=0)
        for found, value in zip(written["exchange"]["shares"][row], expected, strict=True):
            assert found == pytest.approx(value, rel=1e-3)
    for name, weights in maps.items():
        reader, read = name.split("_to_")
        num_keys = there[read].sum()
        for head, found in enumerate(written["relative_entropy"][name]):
            rows = weights[head][there[reader]]
            bits = [
                -sum(w * math.log(w) for w in row if w > 0) / math.log(num_keys) for row in rows
            ]
            assert found == pytest.approx(np.mean(bits), rel=1e-4)
    rows, columns = np.flatnonzero(there["left"]), np.flatnonzero(there["right"])
    forth, back = maps["left_to_right"].mean(0), maps["right_to_left"].mean(0)
    total = 0.0
    for i in rows:
        backwards = back[columns, i] / back[columns, i].sum()
        total += sum(p * math.log(p / q) for p, q in zip(forth[i, columns], backwards, strict=True))
    found = written["consistency"]["mean_of_heads"]
    assert found == pytest.approx(total / len(rows), rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("name", ["default", "full", "rectified"])
def test_a_clip_gets_the_logits_of_an_evaluation(run, workplace, tmp_path, name):
    """Rectifying twice, for one, would give others."""
    options = ["--split=test", "--output", tmp_path]
    evaluated = call("evaluate", f"runs/{name}", *options)
    assert evaluated.exit_code == 0, evaluated.output
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()

    run(f"runs/{name}", "--worst=9", "--format=json", *options)

    expected = {row["clip_id"]: (row["predicted"], row["probability"]) for row in rows}
    found = [json.loads(path.read_text()) for path in tmp_path.glob("*-*.json")]
    assert len(found) == len(expected)
    for one in found:
        gloss, probability = expected[one["clip"]["clip_id"]]
        assert one["prediction"]["gloss"] == gloss
        assert one["prediction"]["probability"] == pytest.approx(probability, abs=1e-5)


def test_npz_and_json_hold_the_same(run, tmp_path):
    run("--format=json,npz", "--output", tmp_path)

    (json_path,), (npz_path,) = tmp_path.glob("*.json"), tmp_path.glob("*.npz")
    written = json.loads(json_path.read_text())
    with np.load(npz_path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(str(arrays.pop("facts")))
    assert arrays.pop("classes").tolist() == written.pop("classes")
    nested = written.pop("arrays")
    assert facts == written
    assert nested.keys() == arrays.keys()
    for name, array in arrays.items():
        values = np.array(nested[name], dtype=array.dtype if array.dtype == bool else np.float64)
        assert np.array_equal(values.astype(array.dtype), array, equal_nan=array.dtype != bool)


def test_the_document_names_everything_that_the_files_hold(run, tmp_path):
    run("--format=json", "--output", tmp_path, "--layer=decoder-1")
    run("--summary", "--format=json,npz", "--output", tmp_path)
    run("runs/spoter", "--faithfulness", "--format=json", "--output", tmp_path)

    (path,) = tmp_path.glob("1-*.json")
    one, summary, faithfulness = (
        json.loads(path.read_text())
        for path in (path, tmp_path / "summary.json", tmp_path / "faithfulness.json")
    )
    found = _keys(one, ("prediction", "clip", "versions", "consistency", "lag", "exchange"))
    found |= _keys(summary, ("overall", "handedness", "correctness"))
    found |= set(summary["overall"]["divergence"]) | set(summary["handedness"]["divergence"])
    found |= set(summary["correctness"]["divergence"]) | set(summary["glosses"][0])
    found |= _keys(faithfulness, ()) | set(faithfulness["orders"]["class query"])
    for name in one["arrays"]:
        layer, _, rest = name.partition(".")
        is_map = layer in one["axes"]
        found |= {"LAYER.MAP", rest} if is_map else {f"{layer}.STREAM" if rest else name}
    with np.load(tmp_path / "summary.npz", allow_pickle=False) as file:
        found |= set(file.files)
    with (tmp_path / "clips.csv").open(encoding="utf-8", newline="") as rows:
        found |= set(next(csv.reader(rows)))
    document = (Path(__file__).parents[2] / "docs/inspect.md").read_text()
    named = set(re.findall(r"`([^`\n]+)`", document))
    assert {_as_documented(key) for key in found} - named == set()


def _keys(written, sections):
    """The keys of an object and of some of the objects in it."""
    return set(written).union(*(written[name] or () for name in sections))


def _as_documented(key):
    key = re.sub(r"^\w+ from \w+$", "READER from READ", key)
    return re.sub(r"^\w+_over_(random|hands_first)$", r"MEASURE_over_\1", key)


def test_json_is_one_object_on_standard_output(run, tmp_path):
    result = run("--json", "--worst", 2, "--format=npz", "--output", tmp_path)

    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert len(summary["clips"]) == 2
    assert summary["layer"] == "fusion"
    assert [Path(path).name for path in summary["files"]] == sorted(os.listdir(tmp_path))
    assert all(clip["misplaced"] == 0 for clip in summary["clips"])
    shares = [clip["prediction"]["probability_of_truth"] for clip in summary["clips"]]
    assert shares == sorted(shares)


def test_a_clip_and_a_gloss_can_be_named(run, tiny_dataset):
    clip = next(clip for clip in tiny_dataset if clip.split == "test")

    one = json.loads(run("--json", "--split=test", "--clip", clip.clip_id).stdout)
    some = json.loads(run("--json", "--data=tiny.parquet", "--gloss", clip.gloss).stdout)

    assert [found["clip_id"] for found in one["clips"]] == [clip.clip_id]
    assert [found["clip_id"] for found in some["clips"]] == [
        other.clip_id for other in tiny_dataset if other.gloss == clip.gloss
    ]


@pytest.mark.parametrize(
    ("name", "layer", "pictures", "text"),
    [
        ("default", None, True, "left hand reads right hand"),
        ("default", "decoder-1", False, "class query reads all streams"),
        ("full", "encoder-2", False, "left hand reads itself"),
        ("full", "decoder-1", False, "class query reads all streams"),
        ("alone", None, True, "class query reads all streams"),
        ("spoter", None, False, "class query reads all streams"),
        ("spoter", "encoder-1", True, "all streams reads itself"),
    ],
)
def test_every_layer_of_every_model_can_be_shown(run, tmp_path, name, layer, pictures, text):
    formats = "--format=terminal,npz" + ",png" * pictures
    options = [] if layer is None else ["--layer", layer]
    result = run(f"runs/{name}", *options, formats, "--output", tmp_path)

    assert result.exit_code == 0, result.output
    assert text in plain(result)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    assert bool(list(tmp_path.glob("*.png"))) == pictures


@pytest.mark.parametrize("question", ["--layer=fusion", "--summary", "--set=model.ffn_dim=8"])
def test_what_a_model_does_not_have_is_said_in_one_line(run, question):
    result = run("runs/spoter", question)

    assert result.exit_code == 2
    assert question.removeprefix("--set=").partition("=")[0] in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_two_runs_are_shown_on_the_same_clip(run, tmp_path):
    result = run("--compare=runs/full", "--output", tmp_path, "--format=terminal,html,png,json")

    assert result.exit_code == 0, result.output
    assert plain(result).count("layer fusion") == 2
    assert len(list(tmp_path.glob("*-compared.png"))) == 1
    assert len(list((tmp_path / "compared").glob("*.json"))) == 1
    assert (tmp_path / "attention.html").is_file()


def test_a_set_is_summarised_and_compared(run, tmp_path):
    arguments = ["--summary", "--split=test", "--compare=runs/full", "--output", tmp_path, "--json"]
    result = run(*arguments)

    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["summary"]
    assert set(summary) == {"run", "compared_with", "difference"}
    assert summary["run"]["clips"] == 4
    assert summary["run"]["misplaced"] == 0
    assert summary["difference"]["divergence"]["mean"] == 0
    assert {"summary.json", "summary.npz", "clips.csv"} <= set(os.listdir(tmp_path))
    written = json.loads((tmp_path / "difference.json").read_text())
    assert written["difference"] == summary["difference"]
    with np.load(tmp_path / "summary.npz", allow_pickle=False) as file:
        assert file["mean"].shape[1:] == (2, 20, 20)


def test_a_run_that_prepares_clips_otherwise_is_compared_on_the_same_ones(run, tmp_path):
    arguments = ["--compare=runs/rectified", "--split=test", "--json"]
    summary = json.loads(run("runs/full", "--summary", *arguments).stdout)["summary"]
    from_file = json.loads(run("runs/full", "--data=tiny.parquet", *arguments).stdout)

    assert summary["compared_with"]["clips"] == summary["run"]["clips"] == 4
    ids = [
        [clip["clip_id"] for clip in one["clips"]]
        for one in (from_file, from_file["compared_with"])
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("name", "order"), [("default", "attention"), ("spoter", "class query")])
def test_faithfulness_ends_with_a_verdict(run, tmp_path, name, order):
    result = run(f"runs/{name}", "--faithfulness", "--format=terminal,json", "--output", tmp_path)

    assert result.exit_code == 0, result.output
    assert f"{name}: removing the frames {order} names first" in plain(result)
    written = json.loads((tmp_path / "faithfulness.json").read_text())
    assert set(written["orders"]) == {
        *(order, "class query", "rollout", "gradient x input", "hands first", "random")
    }
