"""Keep clips, once read and cleaned, as files that are used where they lie."""

from slrctl.core.data.cache.clip_cache import CacheEntry, ClipCache
from slrctl.core.data.cache.stored_clips import StoredClips

__all__ = ["CacheEntry", "ClipCache", "StoredClips"]
