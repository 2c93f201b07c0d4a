"""What may be replaced by a file that has been written whole beside it."""

from pathlib import Path

from slrctl.errors import UsageError


def check_replaceable(path: Path) -> None:
    """Refuse what is there and no file: a rename over a device or a pipe would destroy it.

    Raises:
        UsageError: it is a device, a pipe or a socket, or a link to one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path}: is a device, a pipe or a socket; name a file to write to")
