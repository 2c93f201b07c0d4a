"""`.pose` files, of Holistic or of OpenPose, become clips."""

import builtins
from pathlib import Path

import numpy as np
import pytest
from clips import assert_hands_hang_on_their_own_arms
from holistic_files import OUR_BODY, OUR_HAND
from numpy.testing import assert_allclose, assert_array_equal
from pose_files import HOLISTIC, random_points, write_pose

from slrctl.core import skeleton
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.errors import SlrctlError
from slrctl.settings import DataSettings

SIZE = np.array([640, 480])
# The names pose-format gives OpenPose's points, in OpenPose's order.
OPENPOSE_BODY = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip",
    "RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
]  # fmt: skip
OPENPOSE_HAND = [
    "BASE", "T_STT", "T_BCMC", "T_MCP", "T_IP", "I_CMC", "I_MCP", "I_PIP", "I_DIP", "M_CMC",
    "M_MCP", "M_PIP", "M_DIP", "R_CMC", "R_MCP", "R_PIP", "R_DIP", "P_CMC", "P_MCP", "P_PIP",
    "P_DIP",
]  # fmt: skip
OPENPOSE = {
    "pose_keypoints_2d": OPENPOSE_BODY,
    "hand_left_keypoints_2d": OPENPOSE_HAND,
    "hand_right_keypoints_2d": OPENPOSE_HAND,
}
# OpenPose numbers a hand as MediaPipe does: the wrist, then each finger from its base, thumb first.
OPENPOSE_FINGERS = [
    "wrist", "thumbCMC", "thumbMP", "thumbIP", "thumbTip", "indexMCP", "indexPIP", "indexDIP",
    "indexTip", "middleMCP", "middlePIP", "middleDIP", "middleTip", "ringMCP", "ringPIP",
    "ringDIP", "ringTip", "littleMCP", "littlePIP", "littleDIP", "littleTip",
]  # fmt: skip


def total(components) -> int:
    return sum(len(names) for names in components.values())


def place(components, component: str, point: str) -> int:
    before = 0
    for name, points in components.items():
        if name == component:
            return before + list(points).index(point)
        before += len(points)
    raise KeyError(component)


def landmark(clip, name: str) -> np.ndarray:
    return clip.landmarks[:, skeleton.LANDMARK_NAMES.index(name)]


def read_points(folder: Path, components, xy, confidence=None, **options) -> SignDataset:
    write_pose(folder / "book.pose", components, xy, confidence, **options)
    return load_dataset(folder / "book.pose")


def test_every_holistic_landmark_is_the_one_of_its_name(tmp_path):
    xy = random_points(5, total(HOLISTIC))
    write_pose(tmp_path / "set" / "book" / "a.pose", HOLISTIC, xy, fps=29.97)

    (clip,) = load_dataset(tmp_path / "set")

    assert (clip.clip_id, clip.gloss, clip.aspect) == ("book/a", "book", 640 / 480)
    assert clip.fps == pytest.approx(29.97)
    for ours, theirs in OUR_BODY.items():
        track = xy[:, 0, place(HOLISTIC, "POSE_LANDMARKS", theirs)] / SIZE
        assert_allclose(landmark(clip, ours), track, rtol=1e-6, err_msg=ours)
    for side in ("left", "right"):
        for ours, theirs in OUR_HAND.items():
            track = xy[:, 0, place(HOLISTIC, f"{side.upper()}_HAND_LANDMARKS", theirs)] / SIZE
            assert_allclose(landmark(clip, f"{ours}_{side}"), track, rtol=1e-6, err_msg=ours)
    shoulders = (landmark(clip, "leftShoulder") + landmark(clip, "rightShoulder")) / 2
    assert_allclose(landmark(clip, "neck"), shoulders, rtol=1e-6)


def test_every_openpose_landmark_is_the_one_of_its_name(tmp_path):
    xy = random_points(5, total(OPENPOSE))

    (clip,) = read_points(tmp_path, OPENPOSE, xy, axes="XYC")

    for index, name in enumerate(OPENPOSE_BODY):
        side = {"R": "right", "L": "left"}.get(name[0], "")
        ours = side + name[1:] if side else name.lower()
        if ours in skeleton.LANDMARK_NAMES:
            assert_allclose(landmark(clip, ours), xy[:, 0, index] / SIZE, rtol=1e-6, err_msg=name)
    for first, side in ((19, "left"), (40, "right")):
        for index, ours in enumerate(OPENPOSE_FINGERS):
            track = xy[:, 0, first + index] / SIZE
            assert_allclose(landmark(clip, f"{ours}_{side}"), track, rtol=1e-6, err_msg=ours)


def test_openpose_of_135_points_takes_the_wrists_of_the_body(tmp_path):
    hand = [
        f"{finger}{joint}"
        for finger, joints in {
            "Thumb": ("1CMC", "2Knuckles", "3IP", "4FingerTip"),
            **dict.fromkeys(
                ("Index", "Middle", "Ring", "Pinky"), ("1Knuckles", "2PIP", "3DIP", "4FingerTip")
            ),
        }.items()
        for joint in joints
    ]
    body = ["Nose", "LWrist", "RWrist", "LShoulder", "RShoulder"]
    points = [*body, *(side + name for side in "LR" for name in hand)]
    xy = random_points(3, len(points))

    (clip,) = read_points(tmp_path, {"BODY_135": points}, xy, axes="XYC")

    assert_array_equal(landmark(clip, "wrist_left"), landmark(clip, "leftWrist"))
    for ours, index in (("thumbCMC_left", 5), ("littleTip_left", 24), ("thumbCMC_right", 25)):
        assert_allclose(landmark(clip, ours), xy[:, 0, index] / SIZE, rtol=1e-6)
    assert_allclose(landmark(clip, "neck"), (xy[:, 0, 3] + xy[:, 0, 4]) / 2 / SIZE, rtol=1e-6)


def test_the_face_mesh_stands_in_for_points_the_pose_lacks(tmp_path):
    reduced = HOLISTIC | {"POSE_LANDMARKS": HOLISTIC["POSE_LANDMARKS"][11:17]}
    xy = random_points(3, total(reduced))

    (clip,) = read_points(tmp_path, reduced, xy)

    def face(*numbers: int) -> np.ndarray:
        places = [place(reduced, "FACE_LANDMARKS", str(number)) for number in numbers]
        return xy[:, 0, places].mean(axis=1) / SIZE

    for ours, track in {
        "nose": face(4), "rightEye": face(33, 133), "leftEye": face(362, 263),
        "rightEar": face(234), "leftEar": face(454),
    }.items():  # fmt: skip
        assert_allclose(landmark(clip, ours), track, rtol=1e-6, err_msg=ours)


def test_points_that_are_nowhere_are_missing_and_named(tmp_path):
    reduced = {name: HOLISTIC[name] for name in ("LEFT_HAND_LANDMARKS", "RIGHT_HAND_LANDMARKS")}
    reduced["POSE_LANDMARKS"] = HOLISTIC["POSE_LANDMARKS"][11:17]

    dataset = read_points(tmp_path, reduced, random_points(3, total(reduced)))

    assert np.isnan(landmark(dataset[0], "nose")).all()
    assert dataset.notes == (
        ".pose files: 1 MediaPipe Holistic",
        "points not in the files, taken as missing: 'nose', 'rightEye', 'leftEye', 'rightEar', "
        "'leftEar'",
    )


def test_points_without_confidence_are_missing(tmp_path):
    xy = random_points(4, total(HOLISTIC))
    confidence = np.ones(xy.shape[:3], np.float32)
    confidence[1, 0, -21:] = 0
    xy[2, 0, 0] = np.nan

    (clip,) = read_points(tmp_path, HOLISTIC, xy, confidence)

    is_missing = np.isnan(clip.landmarks[..., 0])
    assert is_missing[1, skeleton.RIGHT_HAND].all()
    assert is_missing[2, skeleton.NOSE]
    assert is_missing.sum() == 21 + 1


def test_a_hand_that_is_never_there_is_told_to_be_no_fault(tmp_path):
    xy = random_points(4, total(HOLISTIC))
    confidence = np.ones(xy.shape[:3], np.float32)
    confidence[..., -42:-21] = 0

    notes = read_points(tmp_path, HOLISTIC, xy, confidence).notes

    assert notes[-1].startswith("no left hand in any frame: it counts as absent, which needs no")


def test_of_several_people_the_first_is_taken_with_a_warning(tmp_path):
    xy = np.repeat(random_points(4, total(HOLISTIC)), 2, axis=1)
    xy[:, 1] += 5

    dataset = read_points(tmp_path, HOLISTIC, xy)

    assert_allclose(landmark(dataset[0], "nose"), xy[:, 0, 0] / SIZE, rtol=1e-6)
    assert dataset.notes[-1] == "warning: 1 file with several people: the first one is taken"


# --- what a file shows --------------------------------------------------------------------------


def write_all(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write_pose(folder / name, HOLISTIC, random_points(3, total(HOLISTIC), seed))


def test_a_flat_folder_names_its_glosses_in_the_files(tmp_path):
    write_all(
        tmp_path, "book_2.pose", "book_10.pose", "good job-1.pose", "area51.pose", "a (3).pose"
    )

    dataset = load_dataset(tmp_path)

    assert {clip.clip_id: clip.gloss for clip in dataset} == {
        "a (3)": "a", "area51": "area51", "book_2": "book", "book_10": "book",
        "good job-1": "good job",
    }  # fmt: skip
    assert dataset.notes[0].startswith("a flat folder: glosses taken from the names of the files")


def test_a_table_of_labels_says_more(tmp_path):
    write_all(tmp_path, "1.pose", "more/2.pose")
    (tmp_path / "labels.csv").write_text(
        "path,gloss,signer,split\n1.pose,book,ann,train\nmore/2.pose,tree,,val\n"
    )

    dataset = load_dataset(tmp_path)

    assert [(c.clip_id, c.gloss, c.signer, c.session, c.split) for c in dataset] == [
        ("1", "book", "ann", None, "train"),
        ("more/2", "tree", None, None, "val"),
    ]


def test_a_single_file_shows_what_it_is_called(shared_data):
    (clip,) = load_dataset(shared_data / "pose" / "pizza.pose")

    assert (clip.clip_id, clip.gloss, clip.num_frames, clip.fps) == ("pizza", "pizza", 53, 24)


def test_a_file_is_known_by_its_content(tmp_path, shared_data):
    content = (shared_data / "pose" / "pizza.pose").read_bytes()
    (tmp_path / "pizza.bin").write_bytes(content)

    assert len(load_dataset(tmp_path / "pizza.bin")) == 1


def test_a_size_the_header_lacks_can_be_said(tmp_path):
    write_pose(tmp_path / "a.pose", HOLISTIC, random_points(3, total(HOLISTIC)), size=(0, 0))

    (clip,) = load_dataset(tmp_path / "a.pose", DataSettings(frame_size=(640, 480)))

    assert clip.aspect == 640 / 480


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    write_all(tmp_path, "1.pose")
    plain_import = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pose_format"):
            raise ImportError(name)
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SlrctlError, match=r"pip install 'slrctl\[pose\]'") as caught:
        load_dataset(tmp_path)

    assert caught.value.exit_code == 1


# --- real clips ---------------------------------------------------------------------------------


def test_real_hands_hang_on_their_own_arms(shared_data):
    dataset = load_dataset(shared_data / "pose")

    assert dataset.classes == ("essen", "kinder", "kleine", "pizza")
    for clip in dataset:
        assert clip.aspect == 640 / 480
        x, y = clip.landmarks[0].T
        assert x[skeleton.LEFT_SHOULDER] - x[skeleton.RIGHT_SHOULDER] > 0.2
        assert x[skeleton.LEFT_EYE] > x[skeleton.RIGHT_EYE]
        assert y[skeleton.LEFT_EYE] < y[skeleton.LEFT_SHOULDER]
        assert_hands_hang_on_their_own_arms(clip)
