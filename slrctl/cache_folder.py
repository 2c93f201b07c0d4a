"""Where programs keep what they can make again, by the custom of the system."""

import os
import sys
from pathlib import Path


def user_cache_folder() -> Path:
    """The folder of slrctl's own caches."""
    home = Path.home()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return folder / "slrctl"
