"""This process's connection to a Ray cluster."""

import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

from grndist.errors import UserError

SECONDS_TO_ANSWER = 10.0


class ClusterError(UserError):
    """A Ray cluster cannot be used: nobody answers, a token is refused, or its versions are not those here."""


class NoClusterError(ClusterError):
    """None was named, and none runs on this machine."""


def is_installed() -> bool:
    """Whether Ray is; it is not imported."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def connected(address: str = "") -> Iterator[None]:
    """Be a driver of a Ray cluster as long as the block lasts.

    Args:
        address: HOST:PORT of its head; empty: that of RAY_ADDRESS, or a cluster that runs on this machine; "local": a
            new one on this machine, which ends with the block.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster that takes this driver.
    """
    refuse_unusable(address)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        with _own_signals():
            ray.init(address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _refusal(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def refuse_unusable(address: str = "") -> None:
    """Raise if it is clear at once that `connected` could not be: without Ray, or where nobody listens.

    Raises:
        ClusterError: Ray is not installed, the address is none, or nobody answers there.
    """
    if not is_installed():
        raise ClusterError("Ray is not installed; pip install 'grndist[cluster]'")
    _refuse_silent(address or os.environ.get("RAY_ADDRESS", ""))


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray would have it exit at once."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and current_thread() is main_thread():
        signal.signal(signal.SIGTERM, before)


def last_line(error: BaseException) -> str:
    """Of an error's message, which for Ray's is what it comes to."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _refuse_silent(address: str) -> None:
    """Raise if nobody listens at HOST:PORT: Ray itself would wait for minutes."""
    if "://" in address:
        raise ClusterError(
            f"{address}: the address of a cluster's head was expected, HOST:6379; to reach it through its job server, "
            "use grndist submit"
        )
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"{address}: the address of a cluster's head was expected, HOST:6379, or local")
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ClusterError(
            f"{address}: no Ray cluster answers there ({error.strerror or error}); see that `ray status` works on its "
            "head, and that this machine may reach that port"
        ) from error


def _refusal(address: str, error: Exception) -> ClusterError:
    words = f"{type(error).__name__}: {error}"
    place = address or os.environ.get("RAY_ADDRESS") or "Ray"
    if "uthentication" in words or "token" in words.lower():
        return ClusterError(
            f"{place}: the cluster wants another token ({last_line(error)}); set RAY_AUTH_MODE=token and bring the "
            "cluster's ~/.ray/auth_token here (grndist doctor shows what is there)"
        )
    if "mismatch" in words:
        said = " ".join(str(error).split())
        return ClusterError(f"{place}: {said}; install the same versions here as on the cluster")
    if isinstance(error, ConnectionError) and "Could not find any running" in words:
        return NoClusterError("no Ray cluster runs on this machine; give --address HOST:6379, or set RAY_ADDRESS")
    return ClusterError(
        f"{place}: no connection to the cluster ({last_line(error)}); if it runs there (`ray status`), it may want "
        "another token: export RAY_AUTH_MODE=token and bring its ~/.ray/auth_token here"
    )
