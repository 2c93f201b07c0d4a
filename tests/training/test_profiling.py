import json

import pytest
import torch

from slrctl.core.data.splits import choose_splits
from slrctl.errors import SlrctlError, UsageError
from slrctl.settings import DataSettings, Settings
from slrctl.training import profile
from slrctl.training.loop import PHASES
from slrctl.training.profile import MOST_OPERATORS, ProfileReport, profile_training

STEPS = 2
SMALL = Settings.layered(
    {
        "model": {"embed_dim": 16, "joint_dim": 16},
        "train": {"batch_size": 2},
    }
)


@pytest.fixture(scope="module")
def profiled(tiny_dataset, tmp_path_factory) -> tuple[ProfileReport, dict]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # phases in other threads would be missed
    trace = tmp_path_factory.mktemp("profile") / "trace.json"
    splits = choose_splits(tiny_dataset, None, None, DataSettings(), seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "STEPS", STEPS)
        report = profile_training(SMALL, splits, trace)
    torch.set_num_threads(before)
    return report, json.loads(trace.read_text(encoding="utf-8"))


def test_the_shares_of_the_phases_are_of_the_whole(profiled):
    report, _ = profiled

    assert tuple(report.phases) == PHASES
    assert sum(report.phases.values()) == pytest.approx(1)
    assert min(report.phases.values()) > 0


def test_the_dearest_operators_come_first(profiled):
    report, _ = profiled
    shares = [cost.share for cost in report.operators]

    assert len(shares) == MOST_OPERATORS
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert any(cost.name.startswith("aten::") for cost in report.operators)


def test_the_trace_shows_every_phase_of_every_watched_step(profiled):
    _, trace = profiled
    names = [event.get("name") for event in trace["traceEvents"] if event.get("ph") == "X"]

    assert {name: names.count(name) for name in PHASES[1:]} == dict.fromkeys(PHASES[1:], STEPS)
    assert names.count("data") >= STEPS


@pytest.mark.parametrize(
    ("name", "refused", "message"),
    [
        ("a" * 250, SlrctlError, "cannot be written there"),  # longer than a file system takes
        ("not there/trace.json", UsageError, "there is no folder"),
        ("thesis", UsageError, "is there already"),
    ],
)
def test_a_trace_that_cannot_be_written_is_refused_and_replaces_nothing(
    tiny_splits, tmp_path, name, refused, message
):
    (tmp_path / "thesis").write_text("mine")

    with pytest.raises(refused, match=message):
        profile_training(SMALL, tiny_splits, tmp_path / name)

    assert (tmp_path / "thesis").read_text() == "mine"
