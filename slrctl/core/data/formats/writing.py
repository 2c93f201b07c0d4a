"""Every format clips are written to, chosen by the end of the file's name."""

from collections.abc import Sequence
from pathlib import Path

from slrctl.core.clip import Clip
from slrctl.core.data.formats.parquet import write_parquet
from slrctl.core.data.formats.spoter_csv_writer import write_csv
from slrctl.errors import SlrctlError, UsageError

_PARQUET, _CSV = (".parquet", ".pq"), (".csv",)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a name that says no format we write, and a file that is there already.

    Raises:
        UsageError: either of these.
    """
    if path.suffix.lower() not in (*_PARQUET, *_CSV):
        raise UsageError(
            f"{path}: the end of its name says no format we write; let it end in .parquet (ours, "
            "keeps everything) or .csv (SPOTER layout)"
        )
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    names = [path.with_name(f"{path.stem}.glosses.json")] if path.suffix.lower() in _CSV else []
    for written in (path, *names):
        if written.exists() and not force:
            raise UsageError(f"{written}: is there already; choose another name, or pass --force")


def write_clips(clips: Sequence[Clip], path: Path) -> list[str]:
    """Write clips in the format the name asks for, whole or not at all; its folder is made.

    Returns:
        Notes on what the format could not hold.

    Raises:
        SlrctlError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in _CSV:
            return write_csv(clips, path)
        write_parquet(clips, path)
    except OSError as error:
        raise SlrctlError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from None
    return []
