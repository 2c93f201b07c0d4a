"""Know a source by its content, without reading it again each time.

The content decides: a copy of a file is the same source, and so is a file of which only the date
has changed. Hashing takes a second per gigabyte, so its result is noted together with the state
the files were in: their names, sizes, inodes and times. No program can set the time at which a
file was last changed (ctime), so as long as the state is the same, the content is.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from slrctl.core.data.cache.publish import publishing
from slrctl.text_files import parse_json, read_text

# A file that is changed twice within a tick of the system's clock keeps its times. So nothing is
# noted of files that were changed as recently as this.
_SETTLED_SECONDS = 2.0


class SourceState(NamedTuple):
    """What the file system says about the files of a source, and when it last changed one."""

    digest: str
    changed_seconds: float

    @property
    def is_settled(self) -> bool:
        """Whether the last change lies so far back that another one would show."""
        return time.time() - self.changed_seconds > _SETTLED_SECONDS


def files_of(source: Path) -> Iterator[Path]:
    """The file itself, or every file in a folder and in the folders in it, in a stable order."""
    if not source.is_dir():
        yield source
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above leads round and round
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def state_of(source: Path) -> SourceState:
    """Look at the files of a source as they are now.

    Raises:
        OSError: one of them is not there, or its folder cannot be looked into.
    """
    whole, latest = hashlib.blake2b(digest_size=16), 0
    for path in files_of(source):
        s = path.stat()
        facts = (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev)
        whole.update(repr((str(path), facts)).encode(errors="surrogateescape"))
        latest = max(latest, s.st_mtime_ns, s.st_ctime_ns)
    return SourceState(whole.hexdigest(), latest / 1e9)


def content_digest(source: Path, notes_dir: Path) -> str:
    """Hash the content of a source's files and their places below it.

    Args:
        source: a file or a folder.
        notes_dir: folder in which results are noted for the next time.

    Raises:
        OSError: a file cannot be read.
    """
    state = state_of(source)
    place = hashlib.blake2b(os.fsencode(source.absolute()), digest_size=16)
    note_path = notes_dir / f"{place.hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = parse_json(read_text(note_path))
        if note["state"] == state.digest:
            return str(note["content"])
    content = _hash_content(source)
    if state.is_settled:
        with suppress(OSError), publishing(note_path) as unfinished:
            unfinished.write_text(json.dumps({"state": state.digest, "content": content}))
    return content


def _hash_content(source: Path) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for path in files_of(source):
        place = os.fsencode(os.path.relpath(path, source))
        with path.open("rb") as file:
            content = hashlib.file_digest(file, hashlib.blake2b).digest()
        whole.update(len(place).to_bytes(8, "little") + place + content)
    return whole.hexdigest()
