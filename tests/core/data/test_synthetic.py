"""The demo set: the same everywhere, as promised in numbers, and signing rather than noise."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from slrctl.core import skeleton
from slrctl.core.clip import Clip, stack_landmarks
from slrctl.core.data.prepare import normalise, resample_frames
from slrctl.core.data.synthetic import SynthesisParameters, SyntheticSet, synthesise
from slrctl.core.data.synthetic.body import (
    bell,
    displacement,
    draw_goals,
    draw_signer,
    draw_timing,
    keys_of,
    palm_frame,
    perform,
    reach,
)
from slrctl.core.data.synthetic.lexicon import (
    BASES,
    BONES,
    COMPONENTS,
    HANDSHAPES,
    KINDS,
    MOVEMENTS,
    ORIENTATIONS,
    Sign,
    differing_components,
    hand_points,
    joint_angles,
    lexicon,
)
from slrctl.errors import UsageError
from slrctl.settings import PrepareSettings

SMALL = SynthesisParameters(num_glosses=8, repetitions=2)
CLEAN = replace(SynthesisParameters(), jitter=0.0, hand_dropout=0.0, landmark_dropout=0.0)
HANDS = {"left": skeleton.LEFT_HAND, "right": skeleton.RIGHT_HAND}


@pytest.fixture(scope="module")
def demo() -> SyntheticSet:
    return synthesise()


@pytest.fixture(scope="module")
def clean() -> SyntheticSet:
    """The same clips as a perfect detector would see them."""
    return synthesise(CLEAN)


def has_hand(clip: Clip, side: str) -> np.ndarray:
    return np.isfinite(clip.landmarks[:, HANDS[side], 0].sum(axis=1))


# The same everywhere


def test_one_seed_gives_one_set_and_another_seed_another():
    first, again, other = (synthesise(SMALL, seed).dataset.fingerprint() for seed in (7, 7, 8))

    assert first == again != other


@pytest.mark.parametrize(
    "more",
    [
        {"num_train_signers": 6},
        {"num_test_signers": 3},
        {"num_glosses": 10},
        {"repetitions": 3},
        {"num_val_signers": 0},
    ],
)
def test_a_larger_or_smaller_set_shares_its_clips(more):
    before = {clip.clip_id: clip for clip in synthesise(SMALL).dataset}
    after = {clip.clip_id: clip for clip in synthesise(replace(SMALL, **more)).dataset}

    shared = before.keys() & after.keys()

    assert len(shared) == min(len(before), len(after))
    assert all(np.array_equal(before[i].landmarks, after[i].landmarks, True) for i in shared)


def test_landmarks_are_rounded_to_five_digits(demo):
    landmarks = demo.dataset[0].landmarks.astype(np.float64)

    assert np.nanmax(np.abs(landmarks - landmarks.round(5))) < 1e-7


def test_bell_is_centred_has_unit_variance_and_ends_at_three():
    drawn = bell(keys_of([("a",), ("b",)]), 50_000)

    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.01)
    assert np.abs(drawn).max() <= 3


# As promised in numbers


def test_default_set_has_the_promised_size(demo):
    dataset = demo.dataset

    assert dataset.name == "demo"
    assert len(dataset) == 24 * 8 * 6
    assert len(dataset.classes) == 24
    assert len({clip.clip_id for clip in dataset}) == len(dataset)
    assert demo.truth.keys() == {clip.clip_id for clip in dataset}


@pytest.mark.parametrize(("split", "num_signers"), [("train", 5), ("val", 1), ("test", 2)])
def test_every_split_has_its_own_signers_and_all_glosses(demo, split, num_signers):
    clips = [clip for clip in demo.dataset if clip.split == split]
    others = {clip.signer for clip in demo.dataset if clip.split != split}
    signers = {clip.signer for clip in clips}
    dominant = {demo.truth[clip.clip_id].dominant_hand for clip in clips}

    assert len(signers) == num_signers
    assert not signers & others
    assert {clip.gloss for clip in clips} == set(demo.dataset.classes)
    assert dominant == ({"left", "right"} if num_signers > 1 else {"right"})


def test_lengths_are_from_20_to_60_frames_and_vary(demo):
    lengths = np.array([clip.num_frames for clip in demo.dataset])

    assert lengths.min() >= 20
    assert lengths.max() <= 60
    assert lengths.std() > 5


def test_lags_are_drawn_evenly_from_minus_8_to_8(demo):
    lags = [truth.lag for truth in demo.truth.values() if truth.lag is not None]

    counts = np.bincount(np.array(lags) + 8, minlength=17)

    assert len(counts) == 17
    assert counts.min() > 0.4 * len(lags) / 17
    assert counts.max() < 1.8 * len(lags) / 17


def test_only_signs_in_which_both_hands_move_have_a_lag(demo):
    kinds = {truth.kind: truth.lag is not None for truth in demo.truth.values()}

    assert kinds == {"one": False, "base": False, "mirrored": True, "alternating": True}


def test_the_leading_hand_is_the_one_ahead_in_time(demo):
    leading = {
        (truth.lag > 0, truth.leading_hand)
        for truth in demo.truth.values()
        if truth.lag is not None and truth.lag != 0
    }

    assert leading == {(True, "left"), (False, "right")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_glosses": 1},
        {"num_glosses": 201},
        {"repetitions": 0},
        {"jitter": float("nan")},
        {"hand_dropout": -0.1},
        {"min_frames": 55},
    ],
)
def test_a_wrong_number_is_refused_by_its_name_and_value(wrong):
    ((name, value),) = wrong.items()

    with pytest.raises(UsageError, match=rf"{name} \({value}\)"):
        SynthesisParameters(**wrong)


# The signs


def minimal_pairs(num_glosses: int) -> list[tuple[Sign, Sign, str]]:
    pairs = ((a, b, differing_components(a, b)) for a, b in combinations(lexicon(num_glosses), 2))
    return [(a, b, names[0]) for a, b, names in pairs if len(names) == 1]


def test_every_component_tells_a_minimal_pair_of_the_demo_set_apart():
    assert {name for _, _, name in minimal_pairs(24)} == set(COMPONENTS)


def test_every_sign_has_a_minimal_pair():
    paired = {sign for one, other, _ in minimal_pairs(200) for sign in (one, other)}

    assert paired == set(lexicon(200))


def test_the_demo_set_has_every_kind():
    assert {sign.kind for sign in lexicon(24)} == set(KINDS)


def test_a_longer_lexicon_begins_with_the_shorter_one():
    assert lexicon(200)[:24] == lexicon(24)
    assert len({sign.gloss for sign in lexicon(200)}) == 200


# The body


def straight_line_hand(angles: np.ndarray) -> np.ndarray:
    """The fingers of a hand, one bone at a time; the thumb is left out."""
    points = []
    for finger in range(4):
        spread = np.deg2rad(angles[finger, 3])
        joint, bend = np.array([*BASES[finger], 0.0]), 0.0
        chain = [joint]
        for bone in range(3):
            bend += np.deg2rad(angles[finger, bone])
            forward = np.cos(bend)
            direction = [forward * np.cos(spread), forward * np.sin(spread), np.sin(bend)]
            joint = joint + BONES[finger, bone] * np.array(direction)
            chain.append(joint)
        points += chain[::-1]
    return np.array(points)


@pytest.mark.parametrize("handshape", HANDSHAPES)
def test_fingers_bend_as_one_bone_after_the_other(handshape):
    angles = joint_angles(handshape)

    points = hand_points(angles[None])[0]

    np.testing.assert_allclose(points[1:17], straight_line_hand(angles), atol=1e-12)


def test_a_fist_is_shorter_than_a_flat_hand_and_curls_into_the_palm():
    flat, fist = hand_points(np.stack([joint_angles("flat"), joint_angles("fist")]))
    middle_tip = skeleton.HAND_NAMES.index("middleTip")

    assert flat[middle_tip, 0] > 1
    assert fist[middle_tip, 0] < 0.55
    assert fist[middle_tip, 2] > 0.05


def test_the_right_palm_shown_to_the_camera_has_its_thumb_on_the_image_right():
    fingers, thumb, palm = palm_frame(np.array(ORIENTATIONS["out"]))

    assert thumb[0] > 0.9
    assert palm[2] < -0.9
    assert fingers[1] < -0.9


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_palm_frame_is_orthonormal(orientation):
    frame = palm_frame(np.array(ORIENTATIONS[orientation]))

    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)


def test_an_arm_reaches_a_near_target_and_stretches_towards_a_far_one():
    signer = draw_signer(0, "somebody", is_left_handed=False)
    shoulder = np.array([-0.5, 0.0, 0.0])
    far = np.array([-0.5, 0.0, -9.0])

    _, wrist = reach(signer, np.stack([np.array([-0.3, 0.4, -0.5]), far]))

    np.testing.assert_allclose(wrist[0], [-0.3, 0.4, -0.5])
    np.testing.assert_allclose(
        wrist[1] - shoulder, [0, 0, -0.98 * (signer.upper_arm + signer.forearm)], atol=1e-12
    )


def test_a_circle_is_round():
    phase = np.linspace(0, 1, 50)[:, None]

    path = displacement(np.full(50, list(MOVEMENTS).index("circle")), phase)

    radius = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(radius, radius[0, 0])


@pytest.fixture(scope="module", params=[False, True], ids=["right-handed", "left-handed"])
def performed(request):
    """Signs of the demo set, each performed once: signs, timing, clip of each frame, landmarks."""
    signs = lexicon(24)
    signer = draw_signer(0, "somebody", is_left_handed=request.param)
    keys = keys_of((number,) for number in range(len(signs)))
    timing = draw_timing(keys, signs, 40.0, (20, 60), 8, is_left_handed=request.param)
    clip = np.repeat(np.arange(len(signs)), timing.num_frames)
    frame = np.concatenate([np.arange(count) for count in timing.num_frames])
    goals = draw_goals(signer, signs, keys)
    body, _ = perform(signer, signs, goals, timing, clip, frame)
    return signs, timing, clip, body


def test_bones_keep_their_length_through_every_clip(performed):
    _, _, _, body = performed
    edges = [*skeleton.BODY_EDGES, *skeleton.LEFT_HAND_EDGES, *skeleton.RIGHT_HAND_EDGES]
    start, end = np.array(edges).T

    lengths = np.linalg.norm(body[:, start] - body[:, end], axis=-1)

    np.testing.assert_allclose(lengths, np.tile(lengths[0], (len(lengths), 1)), rtol=1e-9)


def test_the_body_wrist_is_the_wrist_of_the_hand(performed):
    _, _, _, body = performed

    np.testing.assert_array_equal(body[:, skeleton.LEFT_WRIST], body[:, skeleton.LEFT_HAND.start])
    np.testing.assert_array_equal(body[:, skeleton.RIGHT_WRIST], body[:, skeleton.RIGHT_HAND.start])


def best_shift(left: np.ndarray, right: np.ndarray) -> int:
    """The shift of the right series that correlates best with the left; a plain loop."""
    scores = {}
    for shift in range(-12, 13):
        pairs = [
            (left[i], right[i + shift]) for i in range(len(left)) if 0 <= i + shift < len(right)
        ]
        a, b = np.array(pairs).T
        scores[shift] = np.corrcoef(a, b)[0, 1]
    return max(scores, key=lambda shift: scores[shift])


@pytest.mark.parametrize("kind", ["mirrored", "alternating"])
def test_the_lag_is_where_the_speeds_of_the_wrists_correlate_best(performed, kind):
    signs, timing, clip, body = performed
    found, true = [], []
    for number in [n for n, sign in enumerate(signs) if sign.kind == kind]:
        wrists = body[clip == number][:, [skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST]]
        speed = np.linalg.norm(np.diff(wrists, axis=0), axis=-1)
        found.append(best_shift(speed[:, 0], speed[:, 1]))
        true.append(timing.lag[number])

    assert found == true


def test_the_second_hand_mirrors_the_first_after_the_lag(performed):
    signs, timing, clip, body = performed
    number = next(n for n, sign in enumerate(signs) if sign.kind == "mirrored")
    frames, lag = body[clip == number], int(timing.lag[number])
    first = np.arange(max(0, -lag), len(frames) - max(0, lag))

    left, right = frames[first][:, skeleton.LEFT_HAND], frames[first + lag][:, skeleton.RIGHT_HAND]

    np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1e-12)


def stroke_wrists(performed, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Left and right wrist of each sign of a kind in the stroke, the lag undone."""
    signs, timing, clip, body = performed
    wrists = []
    for number in [n for n, sign in enumerate(signs) if sign.kind == kind]:
        start, end = timing.marks[number, 1:3]
        stroke = np.arange(int(np.ceil(start)), int(end))
        left, right = stroke + max(0, -timing.lag[number]), stroke + max(0, timing.lag[number])
        frames = body[clip == number]
        wrists.append((frames[left, skeleton.LEFT_WRIST], frames[right, skeleton.RIGHT_WRIST]))
    return wrists


def test_alternating_hands_are_in_opposite_phase(performed):
    pairs = stroke_wrists(performed, "alternating")

    # Not exactly -1: at its full reach an arm stops short.
    correlations = [np.corrcoef(left[:, 1], right[:, 1])[0, 1] for left, right in pairs]
    assert max(correlations) < -0.9


def test_a_base_hand_is_held_still_while_the_other_moves(performed):
    pairs = stroke_wrists(performed, "base")

    paths = np.array([[np.ptp(hand, axis=0).max() for hand in pair] for pair in pairs])
    assert paths.min(axis=1).max() < 1e-9
    assert paths.max(axis=1).min() > 0.3


# The clips


def test_the_lag_is_visible_in_when_the_hands_appear(clean):
    moving = [c for c in clean.dataset if clean.truth[c.clip_id].lag is not None]

    appear = [[has_hand(c, side).argmax() for side in HANDS] for c in moving]

    lags = [clean.truth[clip.clip_id].lag for clip in moving]
    assert [right - left for left, right in appear] == lags


def test_only_the_dominant_hand_of_a_one_handed_sign_is_ever_seen(demo):
    one_handed = [c for c in demo.dataset if demo.truth[c.clip_id].kind == "one"]

    seen = [{side for side in HANDS if has_hand(c, side).any()} for c in one_handed]

    assert seen == [{demo.truth[clip.clip_id].dominant_hand} for clip in one_handed]


def test_the_moving_hand_is_seen_through_its_stroke_by_a_perfect_detector(clean):
    seen = [
        has_hand(clip, clean.truth[clip.clip_id].dominant_hand)[slice(*truth.stroke)].all()
        for clip in clean.dataset
        if (truth := clean.truth[clip.clip_id]).lag is None
    ]

    assert np.mean(seen) > 0.98


def test_hands_come_and_go_as_in_real_sets(demo):
    hands = np.concatenate([clip.landmarks for clip in demo.dataset])[:, [12, 33], 0]

    absent = np.isnan(hands).mean()

    assert 0.4 < absent < 0.75


def test_a_hand_is_seen_as_a_whole_or_not_at_all(demo):
    hands = np.concatenate([clip.landmarks for clip in demo.dataset])[:, 12:].reshape(-1, 21, 2)

    missing = np.isnan(hands).any(-1).sum(-1)

    assert set(np.unique(missing)) == {0, 21}


@pytest.mark.parametrize("name", ["jitter", "hand_dropout", "landmark_dropout"])
def test_every_fault_of_the_detector_can_be_switched_off_alone(name):
    with_it = synthesise(SMALL).dataset.fingerprint()

    assert synthesise(replace(SMALL, **{name: 0.0})).dataset.fingerprint() != with_it


def test_nearest_centroid_stays_below_70_percent(demo):
    clips = demo.dataset.clips
    padded, is_valid = stack_landmarks([clip.landmarks for clip in clips])
    prepared = normalise(padded, PrepareSettings()).numpy()
    even = np.stack(
        [resample_frames(p[v], 32) for p, v in zip(prepared, is_valid.numpy(), strict=True)]
    )
    inputs = torch.from_numpy(np.nan_to_num(even)).flatten(1)
    labels = torch.tensor([demo.dataset.classes.index(clip.gloss) for clip in clips])
    is_train = torch.tensor([clip.split == "train" for clip in clips])
    is_test = torch.tensor([clip.split == "test" for clip in clips])
    centroids = torch.stack([inputs[is_train & (labels == k)].mean(0) for k in range(24)])

    nearest = torch.cdist(inputs[is_test], centroids).argmin(1)

    accuracy = (nearest == labels[is_test]).float().mean().item()
    assert 0.3 < accuracy < 0.7
