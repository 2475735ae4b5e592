"""What Ctrl-C and SIGTERM do to a run."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from grndist.errors import UserError


class Interrupted(UserError):  # noqa: N818 - not an error of the user's, but the message is all there is to say
    """The run was asked to stop; the message says what is saved."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.exit_status = 128 + signum


@contextmanager
def collected() -> Iterator[list[int]]:
    """A list to which SIGINT and SIGTERM are added while the block runs; a second one acts at once."""
    received: list[int] = []

    def receive(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])

    with _handled(receive) as before:
        yield received


@contextmanager
def stopped_at_once(message: str) -> Iterator[None]:
    """End the block at the first SIGINT or SIGTERM.

    Raises:
        Interrupted: one has come.
    """

    def stop(signum: int, frame: Any) -> None:
        raise Interrupted(message, signum)

    with _handled(stop):
        yield


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """The handlers of before, which come back afterwards; none in a thread, which no signal reaches."""
    if current_thread() is not main_thread():
        yield {}
        return
    before: dict[int, Any] = {stop: signal.signal(stop, handler) for stop in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
