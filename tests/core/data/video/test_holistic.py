from types import SimpleNamespace

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.data import video as holistic
from slrctl.core.data.video import BadVideo, Unusable, detect, require_video_extra
from slrctl.errors import SlrctlError


def points(count: int, offset: float) -> SimpleNamespace:
    """What MediaPipe hands back: landmark n is at (n + offset, n - offset)."""
    landmarks = [SimpleNamespace(x=n + offset, y=n - offset, z=0.0) for n in range(count)]
    return SimpleNamespace(landmark=landmarks)


def test_what_was_seen_is_put_in_our_order():
    seen = SimpleNamespace(
        pose_landmarks=points(33, 0.25),
        left_hand_landmarks=points(21, 100.5),
        right_hand_landmarks=points(21, 200.5),
    )

    (frame,) = holistic._landmarks(seen)

    place = skeleton.LANDMARK_NAMES.index
    np.testing.assert_array_equal(frame[place("nose")], (0.25, -0.25))
    np.testing.assert_array_equal(frame[place("leftWrist")], (15.25, 14.75))
    np.testing.assert_array_equal(frame[place("neck")], (11.75, 11.25))
    np.testing.assert_array_equal(frame[place("wrist_left")], (100.5, -100.5))
    np.testing.assert_array_equal(frame[place("indexTip_left")], (108.5, -92.5))
    np.testing.assert_array_equal(frame[place("thumbCMC_right")], (201.5, -199.5))


def test_what_was_not_seen_is_missing():
    seen = SimpleNamespace(
        pose_landmarks=None, left_hand_landmarks=points(21, 0.5), right_hand_landmarks=None
    )

    (frame,) = holistic._landmarks(seen)

    is_missing = np.isnan(frame).all(-1)
    assert not is_missing[skeleton.LEFT_HAND].any()
    assert is_missing[skeleton.BODY].all()
    assert is_missing[skeleton.RIGHT_HAND].all()


def test_a_missing_extra_is_named_with_what_it_needs(monkeypatch):
    monkeypatch.setattr(holistic, "find_spec", lambda name: None)

    with pytest.raises(SlrctlError) as caught:
        require_video_extra()

    assert "mediapipe, which is not installed" in str(caught.value)
    assert "pip install 'slrctl[video]'" in str(caught.value)
    assert "numpy below 2" in str(caught.value)


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        (ImportError("libGL.so.1: cannot open shared object file"), "apt-get install libgl1"),
        (SimpleNamespace(), "no Holistic solution"),
    ],
)
def test_a_mediapipe_that_cannot_be_used_says_what_to_install(monkeypatch, tmp_path, found, advice):
    def import_module(name: str) -> object:
        if isinstance(found, ImportError):
            raise found
        return found

    monkeypatch.setattr(holistic, "import_module", import_module)
    video = tmp_path / "video.mp4"
    video.touch()

    unusable = detect(video)

    assert isinstance(unusable, Unusable)
    assert advice in unusable.message


def test_a_video_that_is_not_there_needs_no_mediapipe(tmp_path):
    found = detect(tmp_path / "nowhere.mp4")

    assert isinstance(found, BadVideo)
    assert found.kind == "not there"
