import re

import numpy as np
import pytest

from slrctl.core import skeleton

NAMES = skeleton.LANDMARK_NAMES
HAND = (
    *("wrist", "indexTip", "indexDIP", "indexPIP", "indexMCP"),
    *("middleTip", "middleDIP", "middlePIP", "middleMCP"),
    *("ringTip", "ringDIP", "ringPIP", "ringMCP"),
    *("littleTip", "littleDIP", "littlePIP", "littleMCP"),
    *("thumbTip", "thumbIP", "thumbMP", "thumbCMC"),
)


def test_the_landmarks_have_the_order_of_the_published_files():
    assert (
        *("nose", "neck", "rightEye", "leftEye", "rightEar", "leftEar", "rightShoulder"),
        *("leftShoulder", "rightElbow", "leftElbow", "rightWrist", "leftWrist"),
        *(f"{name}_left" for name in HAND),
        *(f"{name}_right" for name in HAND),
    ) == NAMES
    assert NAMES[skeleton.BODY][-1] == "leftWrist"
    assert NAMES[skeleton.LEFT_HAND] == NAMES[12:33]
    assert NAMES[skeleton.RIGHT_HAND] == NAMES[33:]
    assert (skeleton.HAND_WIDTH, skeleton.BODY_WIDTH) == (42, 24)


@pytest.mark.parametrize(
    "name", ["nose", "neck", *(f"{side}{joint}" for side in ("left", "right")
                               for joint in ("Eye", "Shoulder", "Elbow", "Wrist"))]
)  # fmt: skip
def test_an_index_points_at_its_name(name):
    constant = re.sub("([A-Z])", r"_\1", name).upper()

    assert NAMES[getattr(skeleton, constant)] == name


def test_the_mirror_swaps_left_and_right():
    swapped = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    mirrored = [
        next((name.replace(a, b) for a, b in swapped.items() if a in name), name) for name in NAMES
    ]

    assert [NAMES[index] for index in skeleton.MIRROR] == mirrored
    np.testing.assert_array_equal(skeleton.MIRROR[skeleton.MIRROR], np.arange(54))


@pytest.mark.parametrize(
    ("edges", "stream"),
    [
        (skeleton.BODY_EDGES, skeleton.BODY),
        (skeleton.LEFT_HAND_EDGES, skeleton.LEFT_HAND),
        (skeleton.RIGHT_HAND_EDGES, skeleton.RIGHT_HAND),
    ],
)
def test_the_edges_of_a_stream_join_all_of_its_landmarks_and_no_other(edges, stream):
    joined = {edges[0][0]}
    for _ in edges:
        joined |= {end for edge in edges if joined & set(edge) for end in edge}

    assert joined == set(range(stream.start, stream.stop))


def test_the_edges_of_the_hands_mirror_each_other():
    mirrored = {tuple(skeleton.MIRROR[list(edge)].tolist()) for edge in skeleton.LEFT_HAND_EDGES}

    assert mirrored == set(skeleton.RIGHT_HAND_EDGES)
