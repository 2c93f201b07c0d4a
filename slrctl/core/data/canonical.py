"""The canonical form of a clip: what is settled once about it, before anything is made of it.

This is the one place for options of `prepare` that change the coordinates in the image themselves.
Data sets hold canonical clips, and so does the cache, under the settings named here: a training
pays for them once and not in every epoch. With all options off it is the form of the cleaned clip.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from slrctl.core.clip import Clip
from slrctl.core.data.edge_hands import drop_edge_hands
from slrctl.core.data.mirror import lead_with_right
from slrctl.core.data.rectify import rectify_clips
from slrctl.settings import PrepareSettings


def canonical_settings(settings: PrepareSettings | None) -> dict[str, Any]:
    """What decides the canonical form, fit for JSON; empty where it is that of the cleaned clip."""
    options: dict[str, Any] = {}
    if settings is not None and settings.rectify:
        options["rectify_alpha"] = settings.rectify_alpha
    if settings is not None and settings.edge_hands != "keep":
        options["edge_hands"] = settings.edge_hands
    if settings is not None and settings.dominant_hand != "as_signed":
        options["dominant_hand"] = settings.dominant_hand
    return options


def canonical_clips(clips: Iterable[Clip], settings: PrepareSettings | None) -> Iterator[Clip]:
    """Yield cleaned clips in their canonical form, as trainings and evaluations take them."""
    if settings is not None and settings.rectify:
        clips = rectify_clips(clips, settings)
    if settings is not None and settings.edge_hands == "drop":
        clips = map(without_edge_hands, clips)
    if settings is not None and settings.dominant_hand == "right":
        clips = map(led_by_right, clips)
    yield from clips


def without_edge_hands(clip: Clip) -> Clip:
    """The clip, its hands missing where they lie at the edge of the image."""
    return replace(clip, landmarks=drop_edge_hands(clip.landmarks))


def led_by_right(clip: Clip) -> Clip:
    """The clip, mirrored if its left hand is the more active one."""
    return replace(clip, landmarks=lead_with_right(clip.landmarks, clip.aspect))
