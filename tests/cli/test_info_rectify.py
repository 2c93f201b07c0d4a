import json

import numpy as np
from typer.testing import CliRunner

from slrctl.cli import app
from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.parquet import write_parquet


def write_bent_finger(path):
    """A left index finger of two frames: the last joint straight, then bent by 100 degrees."""
    frames = np.full((2, 54, 2), np.nan, np.float32)
    names = [skeleton.LANDMARK_NAMES.index(f"index{joint}_left") for joint in ("PIP", "DIP", "Tip")]
    for frame, angle in zip(frames, np.radians([0, 100]), strict=True):
        tip = (0.5 + 0.1 * np.sin(angle), 0.5 - 0.1 * np.cos(angle))
        frame[names] = [(0.5, 0.6), (0.5, 0.5), tip]
    write_parquet([Clip("one", "a", frames)], path)


def test_info_says_which_joints_are_out_of_range_before_and_after(tmp_path):
    write_bent_finger(tmp_path / "clips.parquet")

    result = CliRunner().invoke(
        app, ["data", "info", str(tmp_path / "clips.parquet"), "--rectify", "--json"]
    )

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["rectification"]
    assert report["alpha"] == 0.4
    assert "heuristic" in report["note"]
    (joint,) = [joint for joint in report["joints"] if joint["num_frames"]]
    assert (joint["hand"], joint["joint"], joint["num_frames"]) == ("left", "index DIP flexion", 2)
    assert joint["before"]["share"] == joint["after"]["share"] == 0.5
    assert abs(joint["before"]["mean_degrees"] - 10) < 1e-3
    assert abs(joint["after"]["mean_degrees"] - 6) < 1e-3


def test_info_shows_a_table_a_hand_and_the_caveat(tmp_path):
    write_bent_finger(tmp_path / "clips.parquet")

    result = CliRunner().invoke(
        app, ["data", "info", str(tmp_path / "clips.parquet"), "--rectify", "--rectify-alpha", "1"]
    )

    assert result.exit_code == 0, result.output
    left, right = (
        " ".join(line.replace("│", " ").split())
        for line in result.stdout.splitlines()
        if "index DIP flexion" in line
    )
    assert left == "index DIP flexion 2 50.0 % 10.0 10.0 0.0 %"  # and nothing is left by which
    assert right == "index DIP flexion 0"
    assert "right hand: joints out of range" in result.stdout
    assert "note: the ranges are a heuristic" in result.stdout
