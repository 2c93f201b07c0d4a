"""`.pose` files, of Holistic or of OpenPose, become clips."""

import builtins
import struct
from pathlib import Path

import numpy as np
import pytest
from holistic_files import OUR_BODY, OUR_HAND
from numpy.testing import assert_allclose, assert_array_equal
from pose_files import HOLISTIC, random_points, write_pose

from slrctl.core import skeleton
from slrctl.core.data.dataset import load_dataset
from slrctl.errors import DataError, SlrctlError
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
    write_pose(tmp_path / "book.pose", OPENPOSE, xy, axes="XYC")

    (clip,) = load_dataset(tmp_path / "book.pose")

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
    write_pose(tmp_path / "book.pose", {"BODY_135": points}, xy, axes="XYC")

    (clip,) = load_dataset(tmp_path / "book.pose")

    assert_array_equal(landmark(clip, "wrist_left"), landmark(clip, "leftWrist"))
    for ours, index in (("thumbCMC_left", 5), ("littleTip_left", 24), ("thumbCMC_right", 25)):
        assert_allclose(landmark(clip, ours), xy[:, 0, index] / SIZE, rtol=1e-6)
    assert_allclose(landmark(clip, "neck"), (xy[:, 0, 3] + xy[:, 0, 4]) / 2 / SIZE, rtol=1e-6)


def test_the_face_mesh_stands_in_for_points_the_pose_lacks(tmp_path):
    reduced = HOLISTIC | {"POSE_LANDMARKS": HOLISTIC["POSE_LANDMARKS"][11:17]}
    xy = random_points(3, total(reduced))
    write_pose(tmp_path / "book.pose", reduced, xy)

    (clip,) = load_dataset(tmp_path / "book.pose")

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
    write_pose(tmp_path / "book.pose", reduced, random_points(3, total(reduced)))

    dataset = load_dataset(tmp_path / "book.pose")

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
    write_pose(tmp_path / "book.pose", HOLISTIC, xy, confidence)

    (clip,) = load_dataset(tmp_path / "book.pose")

    is_missing = np.isnan(clip.landmarks[..., 0])
    assert is_missing[1, skeleton.RIGHT_HAND].all()
    assert is_missing[2, skeleton.NOSE]
    assert is_missing.sum() == 21 + 1


def test_a_hand_that_is_never_there_is_told_to_be_no_fault(tmp_path):
    xy = random_points(4, total(HOLISTIC))
    confidence = np.ones(xy.shape[:3], np.float32)
    confidence[..., -42:-21] = 0
    write_pose(tmp_path / "book.pose", HOLISTIC, xy, confidence)

    notes = load_dataset(tmp_path / "book.pose").notes

    assert notes[-1].startswith("no left hand in any frame: it counts as absent, which needs no")


def test_of_several_people_the_first_is_taken_with_a_warning(tmp_path):
    xy = np.repeat(random_points(4, total(HOLISTIC)), 2, axis=1)
    xy[:, 1] += 5
    write_pose(tmp_path / "book.pose", HOLISTIC, xy)

    dataset = load_dataset(tmp_path / "book.pose")

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


# --- what is wrong with a file ------------------------------------------------------------------


def write_broken(path: Path, change) -> None:
    write_pose(path, HOLISTIC, random_points(3, total(HOLISTIC)))
    path.write_bytes(change(path.read_bytes()))


def body_start(content: bytes) -> int:
    return len(content) - 3 * total(HOLISTIC) * 4 * 4 - 10


def with_frames(number: int):
    def change(content: bytes) -> bytes:
        place = body_start(content) + 4
        return content[:place] + struct.pack("<I", number) + content[place + 4 :]

    return change


def without_people(content: bytes) -> bytes:
    return content[: body_start(content) + 8] + bytes(2)


def with_value(value: float):
    def change(content: bytes) -> bytes:
        place = body_start(content) + 10
        return content[:place] + struct.pack("<f", value) + content[place + 4 :]

    return change


BROKEN = {
    "a cut off body": (
        lambda content: content[:-100], "cut off file",
        "is cut off: found 25,964 bytes of landmarks, expected 26,064 for 3 frames of 1 x 543 poi",
    ),
    "a billion frames": (
        with_frames(10**9), "cut off file",
        "is cut off: found 26,064 bytes of landmarks, expected 8,688,000,000,000 for 1,000,000,00",
    ),
    "fewer frames than there are": (with_frames(2), "damaged file", "is damaged: found 26,064 byt"),
    "a cut off header": (
        lambda content: content[:300], "damaged file", "cannot be read as a .pose file: it is cut",
    ),
    "another version": (
        lambda content: struct.pack("<f", 7.0) + content[4:], "damaged file",
        "cannot be read as a .pose file: it is cut off or damaged (",
    ),
    "nothing": (lambda content: b"", "damaged file", "cannot be read as a .pose file"),
    "no frames": (
        lambda content: with_frames(0)(content)[: body_start(content) + 10], "no usable frame",
        "holds 0 frames of 1 people; expected one frame and one person at least",
    ),
    "no people": (
        without_people, "no usable frame", "holds 0 people of 543 points; expected one",
    ),
    "inf": (
        with_value(np.inf), "inf", "found inf as x of nose in frame 1, expected a finite number",
    ),
    "no size of the image": (
        lambda content: content[:4] + bytes(4) + content[8:], "no frame size",
        "its header says 0 x 0 for the size of the image; say it with --set data.frame_size=[640",
    ),
    "points of another kind": (
        lambda content: content.replace(b"HAND", b"FOOT").replace(b"POSE", b"LEGS"),
        "unknown points",
        "found the components 'LEGS_LANDMARKS', 'FACE_LANDMARKS', 'LEFT_FOOT_LANDMARKS', 'RIGHT_",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "story"), BROKEN.values(), ids=BROKEN)
def test_a_bad_file_is_named_or_left_out(tmp_path, change, kind, story):
    write_all(tmp_path / "book", "0.pose")
    write_broken(tmp_path / "book" / "1.pose", change)

    check_refused(tmp_path, f"clip 'book/1': {story}", kind)


def check_refused(folder: Path, story: str, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    dataset = load_dataset(folder, DataSettings(skip_bad_clips=True))

    assert str(caught.value).startswith(f"{folder}: {story}")
    assert "\n" not in str(caught.value)
    assert len(dataset) == 1
    assert dataset.notes[0] == f"left out 1 of 2 clips: 1 {kind}"


@pytest.mark.parametrize("cut", [1, 100, 2848, 50_000])
def test_an_old_file_that_was_cut_off_is_not_read_with_its_points_in_wrong_places(
    tmp_path, shared_data, cut
):
    content = (shared_data / "pose" / "pizza.pose").read_bytes()
    (tmp_path / "pizza.pose").write_bytes(content[:-cut])

    with pytest.raises(DataError, match=r"is cut off: found .* for 53 frames of 1 x 178"):
        load_dataset(tmp_path / "pizza.pose")


@pytest.mark.parametrize(
    ("line", "kind", "story"),
    [
        ("2.pose,tree", "missing file", "clip '2': column 'path': the file '2.pose' is not in"),
        ("../1.pose,tree", "path elsewhere", "clip '../1': column 'path': found '../1.pose', expe"),
        ("1.pose,", "no gloss", "clip '1': labels.csv, column 'gloss': found an empty cell"),
    ],
)
def test_a_bad_row_of_labels_is_named_or_left_out(tmp_path, line, kind, story):
    write_all(tmp_path, "1.pose")
    (tmp_path / "labels.csv").write_text(f"path,gloss\n1.pose,book\n{line}\n")

    check_refused(tmp_path, story, kind)


@pytest.mark.parametrize(
    "content", [b"", b"name,sign\n1.pose,book\n", b"path,gloss\n\xff\xfe,\xfc"]
)
def test_labels_of_another_kind_are_explained(tmp_path, content):
    write_all(tmp_path, "1.pose")
    (tmp_path / "labels.csv").write_bytes(content)

    with pytest.raises(DataError, match=r"labels\.csv: "):
        load_dataset(tmp_path)


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
        for hand, wrist, other in (
            (skeleton.LEFT_HAND, skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST),
            (skeleton.RIGHT_HAND, skeleton.RIGHT_WRIST, skeleton.LEFT_WRIST),
        ):
            gaps = np.linalg.norm(
                clip.landmarks[:, hand.start, None] - clip.landmarks[:, [wrist, other]], axis=-1
            )
            gaps = gaps[~np.isnan(gaps).any(1)]
            if len(gaps):
                assert gaps[:, 0].mean() < min(0.05, gaps[:, 1].mean())
