"""Kinematic rectification as the specification tells it: one frame, hand and joint at a time."""

import math

import numpy as np

from slrctl.core import skeleton

FINGERS = ("index", "middle", "ring", "little")


def landmark(name: str, side: str) -> int:
    return skeleton.LANDMARK_NAMES.index(f"{name}_{side}")


def plain_angle(u: np.ndarray, v: np.ndarray) -> float | None:
    lengths = math.hypot(*u) * math.hypot(*v)
    if math.isnan(lengths) or lengths == 0:
        return None
    angle = math.degrees(math.acos(min(1.0, max(-1.0, float(u @ v) / lengths))))
    return -angle if u[0] * v[1] - u[1] * v[0] < 0 else angle


def plain_excess(angle: float, low: float, high: float) -> float:
    return angle - high if angle > high else angle - low if angle < low else 0.0


def plain_turn(vector: np.ndarray, degrees: float) -> np.ndarray:
    radians = math.radians(degrees)
    cos, sin = math.cos(radians), math.sin(radians)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


def plain_flexion(points, parent, joint, child, beyond, low, high, alpha) -> None:
    outer = points[child] - points[joint]
    angle = plain_angle(points[joint] - points[parent], outer)
    if angle is not None and (excess := plain_excess(angle, low, high)):
        movement = plain_turn(outer, -alpha * excess) - outer
        for name in (child, *beyond):
            points[name] = points[name] + movement


def plain_abduction(points, checked, reference, beyond, low, high, alpha) -> None:
    bone = points[checked] - points["wrist"]
    angle = plain_angle(bone, points[reference] - points["wrist"])
    if angle is not None and (excess := plain_excess(angle, low, high)):
        movement = plain_turn(bone, alpha * excess) - bone
        for name in (checked, *beyond):
            points[name] = points[name] + movement


def plain_hand(points: dict[str, np.ndarray], side: str, alpha: float) -> None:
    for finger in FINGERS:
        chain = ["wrist", *(f"{finger}{joint}" for joint in ("MCP", "PIP", "DIP", "Tip"))]
        for number, limit in enumerate((90, 130, 90)):
            parent, joint, child, *beyond = chain[number:]
            plain_flexion(points, parent, joint, child, beyond, -limit, limit, alpha)
    members = [points["littleMCP"][0], points["thumbCMC"][0], points["wrist"][1]]
    if not np.isnan(members).any():
        is_clockwise = (points["littleMCP"][0] > points["thumbCMC"][0]) == (
            points["wrist"][1] < points["thumbCMC"][1]
        )
        chain = ["wrist", "thumbCMC", "thumbMP", "thumbIP", "thumbTip"]
        for number, (low, high) in enumerate(((-45, 20), (-80, 12), (-90, 30))):
            if not is_clockwise:
                low, high = -high, -low
            parent, joint, child, *beyond = chain[number:]
            plain_flexion(points, parent, joint, child, beyond, low, high, alpha)
    for checked, reference, low, high in (
        ("thumbCMC", "indexMCP", 0, 45),
        ("thumbMP", "indexMCP", -7, 12),
        ("indexMCP", "middleMCP", -15, 15),
        ("ringMCP", "middleMCP", -15, 15),
        ("littleMCP", "ringMCP", -15, 15),
    ):
        if side == "right":
            low, high = -high, -low
        beyond = {
            "thumbCMC": ["thumbMP", "thumbIP", "thumbTip"],
            "thumbMP": ["thumbIP", "thumbTip"],
        }.get(checked) or [checked.replace("MCP", joint) for joint in ("PIP", "DIP", "Tip")]
        plain_abduction(points, checked, reference, beyond, low, high, alpha)


def plain_rectify(frames: np.ndarray, aspect: float, alpha: float) -> np.ndarray:
    result = frames.astype(np.float64)
    for frame in result:
        for side in ("left", "right"):
            places = {name: landmark(name, side) for name in skeleton.HAND_NAMES}
            points = {name: frame[place] * (aspect, 1.0) for name, place in places.items()}
            plain_hand(points, side, alpha)
            for name, place in places.items():
                frame[place] = points[name] / (aspect, 1.0)
    return result
