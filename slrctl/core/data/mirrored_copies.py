"""Show every clip of a set beside its mirror image."""

from collections.abc import Iterator
from dataclasses import replace

from slrctl.core.clip import Clip
from slrctl.core.data.canonical import led_by_right
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.formats.reading import quote
from slrctl.core.data.mirror import MIRRORED, mirrored_copy
from slrctl.errors import DataError


def with_mirrored_copies(dataset: SignDataset) -> SignDataset:
    """Every clip followed by its mirrored copy, in the canonical form of the others.

    Raises:
        DataError: a copy's id is taken, as in a set that holds mirrored copies already.
    """
    taken = {clip.clip_id for clip in dataset}
    for clip in dataset:
        if clip.clip_id + MIRRORED in taken:
            raise DataError(
                f"{dataset.source}: found clips {quote(clip.clip_id)} and "
                f"{quote(clip.clip_id + MIRRORED)}; the mirrored copy of the first would have the "
                "id of the second: leave data.val_mirrored off, or rename the second"
            )
    return replace(dataset, clips=tuple(_beside_copies(dataset)))


def _beside_copies(dataset: SignDataset) -> Iterator[Clip]:
    canonical = dataset.canonical
    for clip in dataset:
        copy = mirrored_copy(clip)
        is_led_by_right = canonical is not None and canonical.dominant_hand == "right"
        yield from (clip, led_by_right(copy) if is_led_by_right else copy)
