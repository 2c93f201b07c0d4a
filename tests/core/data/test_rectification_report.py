from collections.abc import Sequence

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.rectify import (
    HEURISTIC,
    Excess,
    JointReport,
    RectificationReport,
    rectification_report,
)
from slrctl.settings import PrepareSettings

NEVER_SEEN = Excess(share=None, mean_degrees=None, p95_degrees=None)


def joint_of(report: RectificationReport, hand: str, joint: str) -> JointReport:
    (found,) = [row for row in report.joints if (row.hand, row.joint) == (hand, joint)]
    return found


def finger_bent_by(degrees: Sequence[float]) -> Clip:
    """A right index finger whose last joint is bent so far, a frame each."""
    frames = np.full((len(degrees), 54, 2), np.nan, np.float32)
    index = [
        skeleton.LANDMARK_NAMES.index(f"index{joint}_right") for joint in ("PIP", "DIP", "Tip")
    ]
    for frame, angle in zip(frames, np.radians(degrees), strict=True):
        frame[index] = [
            (0.5, 0.6),
            (0.5, 0.5),
            (0.5 + 0.1 * np.sin(angle), 0.5 - 0.1 * np.cos(angle)),
        ]
    return Clip("clip", "a", frames)


def test_excesses_are_counted_before_and_after():
    clip = finger_bent_by([0, 90, 100, -130, np.nan])

    joint = joint_of(rectification_report([clip], PrepareSettings()), "right", "index DIP flexion")

    # 10 and 40 degrees too many of four measurable frames; 4 and 16 of them are taken back.
    assert joint.num_frames == 4
    assert joint.before == pytest.approx((0.5, 25, 40), abs=1e-3)
    assert joint.after == pytest.approx((0.5, 15, 24), abs=1e-3)


def test_a_joint_at_the_end_of_its_range_is_in_range():
    clip = finger_bent_by([100, -130])

    report = rectification_report([clip], PrepareSettings(rectify_alpha=1))

    assert joint_of(report, "right", "index DIP flexion").after == (0, None, None)


def test_the_95th_percentile_leaves_a_twentieth_above():
    clip = finger_bent_by([91] * 95 + [140] * 5)

    joint = joint_of(rectification_report([clip], PrepareSettings()), "right", "index DIP flexion")

    assert joint.before.p95_degrees == pytest.approx(1.0, abs=0.1)
    assert joint.before.mean_degrees == pytest.approx(0.95 * 1 + 0.05 * 50, abs=1e-3)


def test_joints_that_are_never_seen_have_no_share():
    report = rectification_report([finger_bent_by([0])], PrepareSettings())

    unseen = [row for row in report.joints if row.joint != "index DIP flexion"]
    assert {(row.num_frames, row.before, row.after) for row in unseen} == {
        (0, NEVER_SEEN, NEVER_SEEN)
    }


def test_it_does_not_depend_on_how_clips_are_grouped():
    rng = np.random.default_rng(0)
    frames = rng.random((6000, 54, 2), dtype=np.float32)
    pieces = [Clip(str(n), "a", frames[n : n + 40]) for n in range(0, 6000, 40)]

    cut, whole = (
        rectification_report(clips, PrepareSettings())
        for clips in (pieces, [Clip("0", "a", frames)])
    )

    for piece, row in zip(cut.joints, whole.joints, strict=True):
        assert piece.num_frames == row.num_frames == 6000
        assert piece.before == pytest.approx(row.before)
        assert piece.after == pytest.approx(row.after)


@pytest.mark.parametrize("name", ["asl14", "ksl13"])
def test_recorded_hands_are_often_out_of_range_and_less_so_afterwards(shared_data, name):
    report = rectification_report(load_dataset(shared_data / f"{name}.parquet"), PrepareSettings())

    def excess(rows: list[Excess]) -> float:
        return float(np.mean([(row.share or 0) * (row.mean_degrees or 0) for row in rows]))

    before = excess([joint.before for joint in report.joints])
    assert len(report.joints) == 2 * 20
    assert all(0 <= (joint.before.share or 0) <= 1 for joint in report.joints)
    assert 1 < before < 20
    assert excess([joint.after for joint in report.joints]) < 0.7 * before
    assert report.note == HEURISTIC
