"""Share of a clip that another one leaves unexplained, in plain loops and with scipy's solver."""

import math

import numpy as np
from scipy.optimize import least_squares

Landmarks = np.ndarray

FIRST_MOVING = 8
"""Elbows, wrists and hands are compared; before them stand torso and head."""


def unexplained(first: Landmarks, second: Landmarks) -> float:
    """The measure on the line alone, of clips that miss nothing: the lesser of both directions."""
    return min(_one_way(first, second), _one_way(second, first))


def _one_way(first: Landmarks, second: Landmarks) -> float:
    first, second = first[:, FIRST_MOVING:], second[:, FIRST_MOVING:]

    def remainder(numbers: np.ndarray) -> list[list[list[float]]]:
        start, end, *affine = numbers
        rest = []
        for row in range(len(first)):
            place = (start + (end - start) * row / (len(first) - 1)) * (len(second) - 1)
            # Beyond the last frame the last step is continued; such ends are not compared.
            low = min(max(math.floor(place), 0), len(second) - 2)
            share = place - low
            of_frame = []
            for mark in range(first.shape[1]):
                x, y = first[row, mark]
                gaps = []
                for axis in (0, 1):
                    a, b, c = affine[3 * axis : 3 * axis + 3]
                    there = (1 - share) * second[low, mark, axis] + share * second[
                        low + 1, mark, axis
                    ]
                    gaps.append(a * x + b * y + c - there)
                of_frame.append(gaps)
            rest.append(of_frame)
        return rest

    begin = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    found = least_squares(lambda numbers: np.ravel(remainder(numbers)), begin)
    return measured(first, remainder(found.x))


def measured(clip: Landmarks, rest: list[list[list[float]]]) -> float:
    """The measure of a remainder, frame by landmark by axis, of a clip that is seen to move."""
    num_frames, num_marks = len(rest), len(rest[0])
    per_frame = [sum(x * x + y * y for x, y in frame) / num_marks for frame in rest]
    typical_square = sorted(per_frame)[num_frames // 2]
    if num_frames % 2 == 0:
        typical_square = (typical_square + sorted(per_frame)[num_frames // 2 - 1]) / 2
    lasting = max(_mean_of(_products(rest, lag), num_marks) for lag in (1, 2, 4))
    moving = [
        [[clip[t, v, a] - clip[:, v, a].mean() for a in (0, 1)] for v in range(num_marks)]
        for t in range(num_frames)
    ]
    products = _products(moving, 1)
    movement = math.sqrt(sum(products) / len(products) / num_marks)
    movement = math.hypot(movement, 0.05)
    return lasting**1.5 / (typical_square * movement)


def _mean_of(products: list[float], num_marks: int) -> float:
    """The mean per landmark, its size plus two standard errors."""
    mean = sum(products) / len(products)
    error = math.sqrt(sum((product - mean) ** 2 for product in products)) / len(products)
    return (abs(mean) + 2 * error) / num_marks


def _products(values: list[list[list[float]]], lag: int) -> list[float]:
    return [
        sum(a * b for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True))
        for one, other in zip(values, values[lag:], strict=False)
    ]
