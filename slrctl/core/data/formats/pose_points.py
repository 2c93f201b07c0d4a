"""Where our landmarks lie among the components of `.pose` files, by the names these files give.

Each landmark has sources in the order of preference; a source is a component and one point of it,
or two whose midpoint is meant. MediaPipe Holistic and OpenPose (137 points, and the 135 of its
single network) are known. Left and right are the signer's in all of them.
"""

from collections.abc import Collection, Iterator, Sequence

from slrctl.core import skeleton

Source = tuple[str, tuple[str, ...]]
Sources = dict[str, tuple[Source, ...]]

_FINGERS = ("index", "middle", "ring", "little")


def _by_hand(wrist: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Our hand landmarks with the names a hand has that counts thumb first, from base to tip."""
    yield "wrist", wrist
    joints = [f"thumb{joint}" for joint in ("CMC", "MP", "IP", "Tip")]
    joints += [f"{finger}{joint}" for finger in _FINGERS for joint in ("MCP", "PIP", "DIP", "Tip")]
    yield from zip(joints, names, strict=True)


def _holistic() -> Sources:
    pose, face = "POSE_LANDMARKS", "FACE_LANDMARKS"
    # Points of the face mesh that lie nearest to those of the pose, over eye distance: nose 0.06
    # (mesh 1, the other candidate, 0.11), eye corners 0.06, ears 0.17. Measured on two portraits
    # and their mirror images with mediapipe 0.10.21. Corners stay where they are in a blink.
    sources: Sources = {
        "nose": ((pose, ("NOSE",)), (face, ("4",)), (face, ("1",))),
        "rightEye": ((pose, ("RIGHT_EYE",)), (face, ("33", "133"))),
        "leftEye": ((pose, ("LEFT_EYE",)), (face, ("362", "263"))),
        "rightEar": ((pose, ("RIGHT_EAR",)), (face, ("234",))),
        "leftEar": ((pose, ("LEFT_EAR",)), (face, ("454",))),
    }
    for side in ("right", "left"):
        for joint in ("Shoulder", "Elbow", "Wrist"):
            sources[f"{side}{joint}"] = ((pose, (f"{side}_{joint}".upper(),)),)
        fingers = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
        names = [f"THUMB_{joint}" for joint in ("CMC", "MCP", "IP", "TIP")]
        names += [
            f"{finger}_{joint}" for finger in fingers for joint in ("MCP", "PIP", "DIP", "TIP")
        ]
        for ours, name in _by_hand("WRIST", names):
            sources[f"{ours}_{side}"] = ((f"{side.upper()}_HAND_LANDMARKS", (name,)),)
    return sources


def _openpose_body(component: str) -> Sources:
    sources: Sources = {"nose": ((component, ("Nose",)),)}
    for side in ("right", "left"):
        for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist"):
            sources[f"{side}{joint}"] = ((component, (f"{side[0].upper()}{joint}",)),)
    return sources


def _openpose() -> Sources:
    body = "pose_keypoints_2d"
    sources = _openpose_body(body) | {"neck": ((body, ("Neck",)),)}
    # pose-format calls the four points of a finger, from its base, after other bones than we do.
    names = ["T_STT", "T_BCMC", "T_MCP", "T_IP"]
    names += [f"{finger}_{joint}" for finger in "IMRP" for joint in ("CMC", "MCP", "PIP", "DIP")]
    for side in ("right", "left"):
        for ours, name in _by_hand("BASE", names):
            sources[f"{ours}_{side}"] = ((f"hand_{side}_keypoints_2d", (name,)),)
    return sources


def _openpose_135() -> Sources:
    body = "BODY_135"
    sources = _openpose_body(body)
    for side in ("right", "left"):
        letter = side[0].upper()
        names = [f"{letter}Thumb{j}" for j in ("1CMC", "2Knuckles", "3IP", "4FingerTip")]
        names += [
            f"{letter}{finger}{joint}"
            for finger in ("Index", "Middle", "Ring", "Pinky")
            for joint in ("1Knuckles", "2PIP", "3DIP", "4FingerTip")
        ]
        for ours, name in _by_hand(f"{letter}Wrist", names):
            sources[f"{ours}_{side}"] = ((body, (name,)),)
    return sources


LAYOUTS = {
    "MediaPipe Holistic": _holistic(),
    "OpenPose": _openpose(),
    "OpenPose (135 points)": _openpose_135(),
}


def find_points(points: Collection[tuple[str, str]]) -> tuple[str, dict[str, Source]] | None:
    """The layout a file has, and the source of each landmark that it holds.

    Args:
        points: the component and name of every point of the file.

    Returns:
        None where no layout knows more than the odd point.
    """
    found = {
        layout: {
            name: source
            for name, sources in landmarks.items()
            for source in [next((s for s in sources if _is_there(s, points)), None)]
            if source is not None
        }
        for layout, landmarks in LAYOUTS.items()
    }
    best = max(found, key=lambda layout: len(found[layout]))
    return (best, found[best]) if len(found[best]) >= skeleton.NUM_HAND else None


def _is_there(source: Source, points: Collection[tuple[str, str]]) -> bool:
    component, names = source
    return all((component, name) in points for name in names)
