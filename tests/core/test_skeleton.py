import numpy as np
import pytest

from slrctl.core import skeleton


def test_the_body_has_the_order_of_the_specification():
    assert skeleton.LANDMARK_NAMES[:12] == (
        *("nose", "neck", "rightEye", "leftEye", "rightEar", "leftEar", "rightShoulder"),
        *("leftShoulder", "rightElbow", "leftElbow", "rightWrist", "leftWrist"),
    )


@pytest.mark.parametrize(("start", "side"), [(12, "left"), (33, "right")])
def test_a_hand_has_the_order_of_the_specification(start, side):
    names = [name.removesuffix(f"_{side}") for name in skeleton.LANDMARK_NAMES[start : start + 21]]

    assert names == [
        "wrist",
        *("indexTip", "indexDIP", "indexPIP", "indexMCP"),
        *("middleTip", "middleDIP", "middlePIP", "middleMCP"),
        *("ringTip", "ringDIP", "ringPIP", "ringMCP"),
        *("littleTip", "littleDIP", "littlePIP", "littleMCP"),
        *("thumbTip", "thumbIP", "thumbMP", "thumbCMC"),
    ]


def test_the_parts_cover_all_landmarks_once():
    indices = np.arange(54)

    covered = np.concatenate(
        [indices[part] for part in (skeleton.BODY, skeleton.LEFT_HAND, skeleton.RIGHT_HAND)]
    )

    np.testing.assert_array_equal(covered, indices)
    assert len(set(skeleton.LANDMARK_NAMES)) == 54


def test_the_streams_are_42_42_and_24_wide():
    assert (skeleton.HAND_WIDTH, skeleton.BODY_WIDTH) == (42, 24)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("nose", "nose"),
        ("neck", "neck"),
        ("rightEye", "leftEye"),
        ("leftElbow", "rightElbow"),
        ("leftWrist", "rightWrist"),
        ("wrist_left", "wrist_right"),
        ("thumbCMC_right", "thumbCMC_left"),
    ],
)
def test_the_mirror_swaps_left_and_right(name, other):
    names = skeleton.LANDMARK_NAMES

    assert skeleton.MIRROR[names.index(name)] == names.index(other)
    assert skeleton.MIRROR[names.index(other)] == names.index(name)


def test_mirrored_twice_is_back():
    np.testing.assert_array_equal(skeleton.MIRROR[skeleton.MIRROR], np.arange(54))
    assert np.count_nonzero(np.arange(54) == skeleton.MIRROR) == 2  # nose and neck


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (skeleton.NOSE, "nose"),
        (skeleton.NECK, "neck"),
        (skeleton.RIGHT_SHOULDER, "rightShoulder"),
        (skeleton.LEFT_SHOULDER, "leftShoulder"),
        (skeleton.RIGHT_EYE, "rightEye"),
        (skeleton.LEFT_EYE, "leftEye"),
        (skeleton.RIGHT_ELBOW, "rightElbow"),
        (skeleton.LEFT_ELBOW, "leftElbow"),
        (skeleton.RIGHT_WRIST, "rightWrist"),
        (skeleton.LEFT_WRIST, "leftWrist"),
    ],
)
def test_an_index_points_at_its_name(index, name):
    assert skeleton.LANDMARK_NAMES[index] == name


@pytest.mark.parametrize(
    ("edges", "part"),
    [
        (skeleton.BODY_EDGES, skeleton.BODY),
        (skeleton.LEFT_HAND_EDGES, skeleton.LEFT_HAND),
        (skeleton.RIGHT_HAND_EDGES, skeleton.RIGHT_HAND),
    ],
)
def test_the_edges_of_a_part_reach_all_of_its_landmarks_and_no_other(edges, part):
    joined = {edges[0][0]}
    for _ in edges:
        joined |= {end for edge in edges if joined & set(edge) for end in edge}

    assert joined == set(range(part.start, part.stop))


def test_the_edges_of_the_hands_mirror_each_other():
    mirrored = {tuple(skeleton.MIRROR[list(edge)].tolist()) for edge in skeleton.LEFT_HAND_EDGES}

    assert mirrored == set(skeleton.RIGHT_HAND_EDGES)
