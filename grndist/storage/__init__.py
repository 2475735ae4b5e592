"""A folder of files by key, on this machine or at a URL: whole files, ranges of them, and no more.

    a path or file://...     preads, and writes aside
    s3, gs, az and the like  obstore; fsspec where obstore is not installed
    any other URL            fsspec, with whatever library it needs

Credentials come from where each cloud's own tools look for them (environment, profile, instance), never from an
argument. Knows nothing of what the files are.
"""

from grndist.storage.opening import delivered, fetched, open_storage, refuse_taken
from grndist.storage.place import Content, Storage, StorageError, absolute, is_remote, joined

__all__ = [
    "Content",
    "Storage",
    "StorageError",
    "absolute",
    "delivered",
    "fetched",
    "is_remote",
    "joined",
    "open_storage",
    "refuse_taken",
]
