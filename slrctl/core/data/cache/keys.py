"""Keys of the cache: hashes of everything that decides what is stored under them."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from slrctl.core.data.cache.content import content_digest
from slrctl.core.data.canonical import canonical_settings
from slrctl.core.data.formats import place_of
from slrctl.settings import DataSettings, PrepareSettings, Settings

# What says where clips lie and what becomes of them, and not how a file is read.
_NOT_READING = {"train", "val", "test", "val_share", "cache", "cache_dir", "cache_gigabytes"}


@cache
def code_version() -> str:
    """A hash of the code that reads and prepares clips, and of the versions of what it stands on.

    So a cache filled by another version of slrctl is not mistaken for this one's, and nobody has
    to remember to count a number up.
    """
    whole = hashlib.blake2b(digest_size=16)
    whole.update(f"numpy {np.__version__}, pyarrow {pa.__version__}".encode())
    core = Path(__file__).resolve().parents[2]
    for path in (core / "clip.py", core / "skeleton.py", *sorted((core / "data").rglob("*.py"))):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def reading_key(
    source: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    notes_dir: Path,
) -> str:
    """The key of a source's clips as they are read with these settings.

    Args:
        source: what the user named, as an absolute path.
        settings: how it is read.
        classes: the glosses of training, if the source is to be evaluated with it.
        prepare: the canonical form of the clips.
        notes_dir: see `content_digest`.

    Raises:
        OSError: a file of the source cannot be read.
    """
    names = settings.gloss_names
    return _key(
        {
            # Clip ids of a CSV begin with its name; the names of folders may be those of signs.
            "name": source.parts[-2:] if source.is_dir() else source.name,
            "content": content_digest(place_of(source), notes_dir),
            "settings": settings.model_dump(mode="json", exclude=_NOT_READING | {"gloss_names"}),
            "gloss_names": None if names is None else content_digest(names, notes_dir),
            # They decide what the integer labels of a CSV count from.
            "classes": None if classes is None else list(classes),
            "canonical": canonical_settings(prepare),
        }
    )


def prepared_key(fingerprint: str, settings: Settings) -> str:
    """The key of normalised clips, from a fingerprint of the cleaned ones."""
    return _key(
        {
            "fingerprint": fingerprint,
            "prepare": settings.prepare.model_dump(mode="json"),
            "max_frames": settings.model.max_frames,
        }
    )


def _key(facts: dict[str, Any]) -> str:
    text = json.dumps({**facts, "code": code_version()}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
