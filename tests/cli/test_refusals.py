"""Refusals end in one line, with the exit code of their kind, and change no file."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from calls import TINY, call
from spoter_files import person, write_csv

from slrctl.core.data.readers.parquet import write_parquet

REFUSALS = [
    ("train --set train.lr=1", 2, "train.learning_rate"),
    ("train --epochs 0", 2, "train.epochs"),
    ("train --cmcl balanced --no-cross-attention", 2, "--cross-attention"),
    ("train --adaptive-cmcl", 2, "cmcl.adaptive"),
    ("train --device tpu9", 2, "tpu9"),
    ("train --name ../up", 2, "--name"),
    ("train --name a --run-dir b", 2, "--run-dir"),
    ("train --val clips.csv", 2, "clips.csv"),
    ("train --config none.toml", 2, "none.toml"),
    ("train --train clips.csv", 3, "clips.csv"),
    ("train --train one_gloss.parquet", 3, "one_gloss"),
    ("train --train tiny.parquet --name one", 2, "--force"),
    ("train --train tiny.parquet --find-lambdas --no-cross-attention", 2, "--find-lambdas"),
    ("train --train tiny.parquet --find-lambdas --set=model.name=spoter", 2, "--find-lambdas"),
    ("evaluate nowhere", 1, "nowhere"),
    ("evaluate --split holdout", 2, "train, val, test"),
    ("evaluate --data tiny.parquet --split x", 2, "test, train, val"),
    ("evaluate --set model.max_frames=300", 2, "model.max_frames"),
    ("evaluate --set prepare.hand_box=3", 2, "prepare.hand_box"),
    ("evaluate --data none.csv", 3, "none.csv"),
    ("evaluate --output theirs", 2, "predictions.parquet"),
    ("inspect-attention --format=gif", 2, "terminal, png, svg, pdf, html"),
    ("inspect-attention --layer=encoder-9", 2, "fusion, decoder-1"),
    ("inspect-attention --clip=nobody", 2, "--clip 'nobody'"),
    ("inspect-attention --gloss=nothing", 2, "--gloss 'nothing'"),
    ("inspect-attention --gloss=a --worst=2", 2, "--worst"),
    ("inspect-attention --summary --worst=2", 2, "--worst"),
    ("inspect-attention --split=dev", 2, "--split dev"),
    ("inspect-attention runs/none", 1, "runs/none"),
    ("inspect-attention --data=absent.csv", 3, "absent.csv"),
    ("ablate --study=cmlc", 2, "cmcl"),
    ("ablate --variant=x", 2, "NAME:section.key=value"),
    ("ablate --grid=cmcl.temperature=1,2 --variant=a:seed=1", 2, "--grid"),
    ("ablate --folds=session", 2, "signer"),
    ("ablate --plan=0", 2, "--plan 0"),
    ("ablate --plan=nan", 2, "--plan nan"),
    ("ablate --train=tiny.parquet --set=cmcl.preset=balanced --dry-run", 2, "cmcl.preset"),
    ("ablate --train=tiny.parquet --train-signers=nobody --dry-run", 3, "nobody"),
    ("doctor --device quantum", 2, "quantum"),
    ("data convert words.csv words.npz", 2, "words.npz"),
    ("data convert words.csv words.csv --force", 2, "words.csv"),
    ("data convert nowhere.csv x.parquet", 3, "nowhere.csv"),
    ("data convert words.csv x.parquet --split training2", 2, "training2"),
    ("data convert words.csv words.csv x.parquet", 3, "words"),
    ("data convert words.csv words.csv words.csv x.pq --split val --split val", 2, "2 splits"),
    ("data convert words.csv x.parquet --frame-size 640", 2, "640x480"),
    ("data convert words.csv x.parquet --set model.ffn_dim=3", 2, "model.ffn_dim"),
    ("data convert words.csv there.parquet", 2, "there.parquet"),
    ("data convert bad.csv x.parquet", 3, "row 1, column 'labels'"),
    ("data split tiny.parquet --force", 2, "--by"),
    ("data split tiny.parquet --by=signer", 2, "--force"),
    ("data split tiny.parquet --by=signer --output=x.csv", 2, "x.csv"),
    ("data split words.csv --by=random --force", 2, "words.csv"),
    ("data split tiny.parquet --test-signers=test2 --force", 3, "'test1'"),
    ("data split tiny.parquet --test-signers=test1 --val-signers=test1 --force", 2, "test1"),
    ("data split tiny.parquet --train-signers=val1 --test-signers=test1 --force", 2, "no split"),
    ("data split tiny.parquet --test-signers=a --val-sessions=b --force", 2, "sessions"),
    ("data split tiny.parquet --test-signers=, --force", 2, "--test-signers"),
    ("data split tiny.parquet --by random --val-share .6 --test-share .5 --force", 2, "below 1"),
    ("data split unmarked.parquet --by signer --force", 3, "16 clips of 16"),
    ("data split /proc/self/mem --by random", 3, "/proc/self/mem"),
    ("data show tiny.parquet train1-flat", 3, "train1-flat"),
    ("data show tiny.parquet 0", 3, "1 to 16"),
    ("data show tiny.parquet 17", 3, "1 to 16"),
    ("data show tiny.parquet --gloss flatt", 3, "'flat"),
    ("data show tiny.parquet --output clip.mp4", 2, "clip.mp4"),
    ("data show tiny.parquet --output there.gif", 2, "there.gif"),
    ("data show tiny.parquet --output there.gif/clip.gif", 1, "there.gif"),
    ("data audit none.parquet", 3, "none.parquet"),
    ("data audit train=tiny.parquet", 3, "one split"),
    ("data audit unmarked.parquet", 3, "column 'split'"),
    ("data audit tiny.parquet tiny.parquet", 2, "'tiny'"),
    ("data audit tiny.parquet --allow gloss", 2, "--allow gloss"),
    ("data audit tiny.parquet --fix out.csv", 2, ".parquet"),
    ("data audit tiny.parquet --fix unmarked.parquet", 2, "--force"),
    ("data audit =tiny.parquet", 2, "SPLIT=PATH"),
    ("data synth x.parquet --glosses=1", 2, "num_glosses (1)"),
    ("data synth x.parquet --clips=0", 2, "--clips 0"),
    ("data synth x.parquet --clips=1153", 2, "1 to 1152"),
    ("data synth x.txt", 2, "x.txt"),
    ("data synth there.parquet", 2, "there.parquet"),
    ("data synth x.parquet --truth there.parquet", 2, "there.parquet"),
    ("data info nowhere.csv", 3, "nowhere.csv"),
    ("data info tiny.parquet --output words.csv/pictures", 1, "words.csv"),
    ("data info tiny.parquet --gloss-names nope.json", 3, "nope.json"),
    ("data cache --info --clear", 2, "give one"),
]


@pytest.fixture(scope="module")
def folder(finished, tiny_dataset, tmp_path_factory) -> Path:
    """A run, and files that are good, bad or in the way."""
    folder = tmp_path_factory.mktemp("refusals")
    shutil.copytree(finished[0], folder, dirs_exist_ok=True)
    write_parquet(
        [replace(c, split=None, signer=None) for c in tiny_dataset], folder / "unmarked.parquet"
    )
    alone = [clip for clip in tiny_dataset if clip.gloss == tiny_dataset.classes[0]]
    write_parquet(alone, folder / "one_gloss.parquet")
    write_csv(folder / "words.csv", [person(4, 1), person(5, 2)], [0, 1])
    write_csv(folder / "bad.csv", [person(3)], changes={(0, "labels"): "one"})
    (folder / "clips.csv").write_text("no,clips\n1,2\n")
    (folder / "theirs").mkdir()
    for name in ("there.gif", "there.parquet", "theirs/predictions.parquet"):
        (folder / name).write_text("a thesis")
    return folder


@pytest.mark.parametrize(("line", "code", "named"), REFUSALS, ids=[line for line, *_ in REFUSALS])
def test_what_cannot_be_done_is_named_on_one_line(folder, monkeypatch, line, code, named):
    def files():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    monkeypatch.chdir(folder)
    before = files()
    command, *arguments = line.split()

    result = call(command, *(TINY if command == "train" else []), *arguments)

    assert result.exit_code == code, result.output
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert files() == before


def test_without_any_run_it_is_said_how_to_make_one(run):
    result = run("evaluate")

    assert result.exit_code == 1
    assert "slrctl train" in result.stderr


@pytest.mark.parametrize("name", ["pipe.parquet", "pipe.csv"])
def test_a_pipe_is_neither_read_nor_replaced(run, tmp_path, name):
    os.mkfifo(tmp_path / name)
    write_csv(tmp_path / "words.csv", [person(4)], [0])

    read, written = run("data", "info", name), run("data", "convert", "words.csv", name)

    assert read.exit_code == 3
    assert written.exit_code != 0
    assert (tmp_path / name).is_fifo()
    for result in (read, written):
        assert "pipe" in result.stderr
        assert result.stderr.count("\n") == 1
