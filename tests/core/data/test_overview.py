"""The numbers of `slrctl data info`, counted once more by plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.mirror import mirrored_copy
from slrctl.core.data.overview import describe_clips
from slrctl.core.data.selection import typical_clips


def random_clips() -> list[Clip]:
    """Six clips of 1 to 6 frames with landmarks missing here and there; some facts unknown."""
    rng = np.random.default_rng(3)
    clips = []
    for number in range(6):
        landmarks = rng.uniform(-0.2, 1.2, (number + 1, 54, 2)).astype(np.float32)
        landmarks[rng.random((number + 1, 54)) < 0.3] = np.nan
        landmarks[: number // 2, skeleton.LEFT_HAND] = np.nan
        landmarks[number // 3 : number // 3 + 2, skeleton.RIGHT_HAND] = np.nan
        clips.append(
            Clip(
                clip_id=str(number),
                gloss="abcabb"[number],
                landmarks=landmarks,
                signer=["x", "y", None][number % 3],
                session="st"[number % 2],
                split=["train", "train", "val"][number % 3],
                fps=[25.0, None][number % 2],
                aspect=[1.5, 1.0, 1.5][number % 3],
            )
        )
    return clips


def is_missing(clip: Clip, frame: int, landmark: int) -> bool:
    x, y = clip.landmarks[frame, landmark].tolist()
    return math.isnan(x) or math.isnan(y)


def test_missing_shares_and_shares_of_hands_are_those_a_loop_counts():
    clips, frames = random_clips(), 1 + 2 + 3 + 4 + 5 + 6
    counts = [0] * 54
    hands = dict.fromkeys(("both", "left_only", "right_only", "neither"), 0)
    for clip in clips:
        for frame in range(clip.num_frames):
            missing = [is_missing(clip, frame, landmark) for landmark in range(54)]
            counts = [count + lost for count, lost in zip(counts, missing, strict=True)]
            if all(missing[12:33]):
                hands["neither" if all(missing[33:]) else "right_only"] += 1
            else:
                hands["left_only" if all(missing[33:]) else "both"] += 1

    overview = describe_clips(clips)

    assert overview.frames == frames
    assert list(overview.missing_landmarks.values()) == pytest.approx([n / frames for n in counts])
    assert overview.missing == pytest.approx(
        {
            "body": sum(counts[:12]) / (12 * frames),
            "left_hand": sum(counts[12:33]) / (21 * frames),
            "right_hand": sum(counts[33:]) / (21 * frames),
        }
    )
    assert overview.hands == pytest.approx({name: n / frames for name, n in hands.items()})
    assert min(hands.values()) > 0  # or the test would say little


def test_groups_count_clips_and_what_is_in_them():
    overview = describe_clips(random_clips())

    assert [(g.name, g.clips, g.glosses, g.sessions) for g in overview.signers] == [
        ("x", 2, 1, 2),  # clips 0 and 3, both of gloss a
        ("y", 2, 1, 2),  # clips 1 and 4, both of gloss b
        (None, 2, 2, 2),  # clips 2 and 5, of c and b
    ]
    assert [(g.name, g.clips, g.signers) for g in overview.splits] == [
        ("train", 4, 2),
        ("val", 2, 0),
    ]
    assert [(g.name, g.clips) for g in overview.glosses] == [("a", 2), ("b", 3), ("c", 1)]


def test_lengths_speeds_balance_and_aspects_are_those_worked_by_hand():
    overview = describe_clips(random_clips())

    assert overview.length == {"minimum": 1, "median": 3.5, "mean": 3.5, "maximum": 6}
    assert overview.fps == {"minimum": 25, "median": 25, "mean": 25, "maximum": 25}
    assert overview.clips_without_fps == 3
    assert overview.balance == {"minimum": 1, "median": 2, "maximum": 3, "imbalance": 3}
    assert overview.aspects == {1.5: 4, 1.0: 2}


def test_coordinates_are_those_a_loop_finds():
    clips = random_clips()
    points = [
        clip.landmarks[frame, landmark].tolist()
        for clip in clips
        for frame in range(clip.num_frames)
        for landmark in range(54)
        if not is_missing(clip, frame, landmark)
    ]
    outside = sum(not (0 <= x <= 1 and 0 <= y <= 1) for x, y in points)

    _, x, y, outside_image = describe_clips(clips).coordinates

    assert outside_image == pytest.approx(outside / len(points))
    assert x["minimum"] == pytest.approx(min(x for x, _ in points))
    assert y["maximum"] == pytest.approx(max(y for _, y in points))
    assert x["minimum"] < x["percentile_1"] < x["percentile_99"]


@pytest.mark.parametrize(("turned", "expected"), [(False, "down"), (True, "up")])
def test_the_y_axis_is_told_from_noses_and_shoulders(tiny_dataset, turned, expected):
    clips = list(tiny_dataset)
    if turned:
        clips = [
            replace(clip, landmarks=(clip.landmarks * [1, -1] + [0, 1]).astype(np.float32))
            for clip in clips
        ]

    assert describe_clips(clips).coordinates.y_axis == expected


def test_without_a_nose_the_y_axis_is_not_known():
    clip = random_clips()[5]
    clip.landmarks[:, skeleton.NOSE] = np.nan

    assert describe_clips([clip]).coordinates.y_axis is None


def test_mirrored_clips_have_the_other_hand_dominant(tiny_dataset):
    overview = describe_clips(tiny_dataset.clips)
    mirrored = describe_clips([mirrored_copy(clip) for clip in tiny_dataset])

    left, right, neither = overview.dominant_hand.values()
    assert left > 0
    assert mirrored.dominant_hand == {"left": right, "right": left, "neither": neither}
    assert left + right + neither == overview.clips


def test_the_typical_clip_of_a_gloss_has_the_middle_share_missing():
    clips = []
    for number, share in enumerate([0.9, 0.1, 0.5]):
        landmarks = np.zeros((1, 54, 2), np.float32)
        landmarks[:, : int(54 * share)] = np.nan
        clips.append(Clip(str(number), "book", landmarks))

    assert [clip.clip_id for clip in typical_clips(clips, 5)] == ["2"]
