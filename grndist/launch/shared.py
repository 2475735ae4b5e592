"""Whether all machines see the same storage: one leaves a mark in the run root, and the others look for it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from grndist.errors import UserError
from grndist.storage import open_storage

CONTENT = b"written by grndist doctor or preflight; it may be deleted"


@contextmanager
def marked(runs: str) -> Iterator[str]:
    """The key of a file in the run root that lasts as long as the block; empty where this machine cannot write there.

    Nothing is written, and the key is empty, where there is no run root.
    """
    if not runs or refusal(runs):
        yield ""
        return
    key, folder = f"{_own_key()}-mark", open_storage(runs)
    folder.write(key, CONTENT)
    try:
        yield key
    finally:
        folder.delete([key])


def refusal(runs: str, mark: str = "") -> str:
    """Why files cannot be written to the run root from here, or its `mark` is not seen; empty if all is well."""
    try:
        folder = open_storage(runs)
        if mark:
            folder.read(mark)
        folder.write(_own_key(), CONTENT)
        folder.delete([_own_key()])
    except FileNotFoundError:
        return "what another machine has written there is not there, so this is not the same storage"
    except (UserError, OSError) as error:
        return str(error)
    return ""


def _own_key() -> str:
    return f".grndist-check-{socket.gethostname()}-{os.getpid()}"
