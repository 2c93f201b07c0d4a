"""Epochs are shown in a tracker as well, and a run without one needs none."""

import json
import subprocess
import sys

import pytest
from calls import TINY

# In a process of its own, for tensorboard's imports warn.
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)]
                  for tag in events.Tags()["scalars"]}))
"""


@pytest.mark.slow
def test_tensorboard_shows_every_number_of_every_epoch(tiny_path, tmp_path):
    command = ["slrctl", "train", "--train", tiny_path, "--run-dir", "run", *TINY]
    start = "import sys; from slrctl.cli import main; sys.argv = sys.argv[1:]; main()"
    subprocess.run(
        [sys.executable, "-c", start, *command, "--set=train.tracker=tensorboard"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=240,
    )
    folder = tmp_path / "run" / "tracking" / "epochs"
    read = subprocess.run(
        [sys.executable, "-c", READ, folder], check=True, capture_output=True, timeout=120
    )

    shown = json.loads(read.stdout)

    written = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    for name in ("train_loss", "val_accuracy", "learning_rate", "gradient_norm"):
        expected = [[line["epoch"], pytest.approx(line[name], rel=1e-6)] for line in lines]
        assert shown[name] == expected


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_tracker_is_named_with_its_extra(run, tiny_path, tmp_path, monkeypatch, name):
    found = {"accelerate": True}
    monkeypatch.setattr(
        "slrctl.training.run.importlib.util.find_spec", lambda package: found.get(package)
    )

    result = run("train", "--train", tiny_path, *TINY, f"--set=train.tracker={name}")

    assert result.exit_code == 2
    assert f"pip install 'slrctl[{name}]'" in result.output
    assert not list(tmp_path.glob("runs/*/settings.toml"))
