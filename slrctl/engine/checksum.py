"""A checksum inside the file it is of, so that no byte of it can change unnoticed.

The file has a place for 64 hexadecimal digits behind a fixed mark. The checksum is that of the
whole file with zeros in this place.
"""

import hashlib

BLANK = "0" * 64
"""What a writer puts in the place of the checksum before there is one."""
# As JSON inside JSON looks, where the checksum is the inner one's first value.
_MARK = b'{\\"checksum\\": \\"'
# The mark stands near the beginning of a file, before anything that a user has named.
_SEARCHED = 256


def has_place(content: bytes) -> bool:
    """Whether there is a place for a checksum at all."""
    return _place(content) is not None


def with_checksum(content: bytes) -> bytes:
    """Fill the place of the checksum.

    Raises:
        ValueError: there is none.
    """
    place = _place(content)
    if place is None:
        raise ValueError("the content has no place for a checksum")
    return content[: place.start] + _digest(content, place) + content[place.stop :]


def is_whole(content: bytes) -> bool:
    """Whether this is to the bit what `with_checksum` made."""
    place = _place(content)
    return place is not None and content[place.start : place.stop] == _digest(content, place)


def _place(content: bytes) -> slice | None:
    start = content.find(_MARK, 0, _SEARCHED)
    return None if start < 0 else slice(start + len(_MARK), start + len(_MARK) + len(BLANK))


def _digest(content: bytes, place: slice) -> bytes:
    whole = memoryview(content)
    digest = hashlib.blake2b(digest_size=len(BLANK) // 2)
    for part in (whole[: place.start], BLANK.encode(), whole[place.stop :]):
        digest.update(part)
    return digest.hexdigest().encode()
