"""A cluster's job server: send a job, follow its log, stop it. The server runs it whether or not anybody watches."""

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from grndist.launch.connection import ClusterError, is_installed

SECONDS_TO_ANSWER = 10.0
SECONDS_FOR_AGENT = 120.0  # a head that has just started has none for a while
SECONDS_WITHOUT = 120.0  # that a followed job's server may be silent
SECONDS_BETWEEN = 3.0
SECONDS_TO_END = 120  # that a job which is stopped has for its last checkpoint; Ray's own 3 are too few for workers
PORTS = {"http": 80, "https": 443}
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")

logger = logging.getLogger(__name__)


class SilentError(ClusterError):
    """The job server does not answer, or not any more."""


class NoAgentYetError(ClusterError):
    """The job server has just started and cannot take jobs yet."""


@dataclass(frozen=True)
class Standing:
    """How a job stands: the server's words for it, and the exit status of its entry point once it has ended."""

    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED
    message: str
    exit_status: int  # 1 where the server does not know it

    @property
    def is_over(self) -> bool:
        """Whether nothing runs any more."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


class JobServer:
    """The job server at http(s)://HEAD:8265, through Ray's own client."""

    def __init__(self, address: str):
        """Connect to it.

        Raises:
            ClusterError: Ray is not installed, nobody answers, or the server wants another token.
        """
        self.address = address.rstrip("/")
        _refuse(self.address)
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # Ray's client prefers its variables to its argument
        with self._errors():
            from ray.job_submission import JobSubmissionClient

            for name in CHATTY:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client: Any = JobSubmissionClient(self.address)

    def submit(self, name: str, entrypoint: str, folder: Path) -> None:
        """Run `entrypoint` as the job `name`, in a copy of `folder`; a server that has no agent yet is asked again.

        Raises:
            ClusterError: the server does not take it.
        """
        until = time.monotonic() + SECONDS_FOR_AGENT
        while True:
            try:
                self._submit(name, entrypoint, folder)
            except NoAgentYetError:
                if time.monotonic() > until:
                    raise
                logger.info("%s cannot take jobs yet; asking again", self.address)
                time.sleep(SECONDS_BETWEEN)
            else:
                return

    def _submit(self, name: str, entrypoint: str, folder: Path) -> None:
        environment = {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_END)}}
        with self._errors():
            self._client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment)

    def standing(self, job: str) -> Standing:
        """How the job stands.

        Raises:
            ClusterError: there is no such job.
        """
        with self._errors():
            about = self._client.get_job_info(job)
        status = str(about.status.value)
        code = 0 if status == "SUCCEEDED" else _of_shell(about.driver_exit_code)
        return Standing(status, about.message or "", code)

    def stop(self, job: str) -> bool:
        """Ask a job to end; whether it was still running.

        Raises:
            ClusterError: there is no such job.
        """
        with self._errors():
            return bool(self._client.stop_job(job))

    def follow(self, job: str, show: Callable[[str], None]) -> Standing:
        """Show the job's log from its beginning, as it grows, until the job is over; how it ended.

        A connection that breaks is taken up again where it was.

        Raises:
            ClusterError: there is no such job, or the server has been silent for too long.
        """
        self.standing(job)
        log, heard = Unseen(show), time.monotonic()
        while True:
            try:
                asyncio.run(self._tail(job, log))
                heard = time.monotonic()
                if (standing := self.standing(job)).is_over:
                    asyncio.run(self._tail(job, log))  # its last lines, if they came after Ray had looked for more
                    return standing
            except SilentError:
                if time.monotonic() - heard > SECONDS_WITHOUT:
                    raise
                logger.info("the connection to %s is lost; taking it up again", self.address)
                time.sleep(SECONDS_BETWEEN)

    async def _tail(self, job: str, log: "Unseen") -> None:
        with self._errors():
            log.begin()
            async for text in self._client.tail_job_logs(job):
                log.add(text)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What Ray's client raises, as one message."""
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except (AuthenticationError, aiohttp.WSServerHandshakeError) as error:
            raise self._refusal(str(error)) from error
        except (ConnectionError, requests.ConnectionError, requests.Timeout, aiohttp.ClientError) as error:
            raise SilentError(f"{self.address}: the job server does not answer any more ({error})") from error
        except (RuntimeError, requests.RequestException, KeyError) as error:
            raise self._refusal(str(error)) from error

    def _refusal(self, words: str) -> ClusterError:
        if "No available agent" in words:
            return NoAgentYetError(f"{self.address} has no agent that takes jobs; look at `ray status` on the head")
        if re.search(r"Authentication (required|failed)", words):
            why = "wants a token" if "required" in words else "has another token"
            return ClusterError(
                f"{self.address}: the cluster {why}; set RAY_AUTH_MODE=token and bring its ~/.ray/auth_token here, "
                "mode 0600 (grndist doctor shows what is there)"
            )
        if "WebSocket" in words:
            return SilentError(f"{self.address}: the connection broke ({words})")
        if gone := re.search(r"Job (\S+) does not exist", words):
            return ClusterError(f"{self.address} knows no job {gone[1]}; `ray job list` shows those that it does")
        if "already exists" in words:
            return ClusterError(f"{self.address}: there is a job of that name; submit again")
        last = (words.strip().splitlines() or ["no reason given"])[-1]
        return ClusterError(f"{self.address}: not done ({last[:300]}); is that the address of Ray's job server?")


@dataclass
class Unseen:
    """Shows what was not shown before, of a log that comes from its beginning each time somebody connects."""

    show: Callable[[str], None]
    shown: int = 0  # characters
    at: int = 0

    def begin(self) -> None:
        """It comes from its beginning again."""
        self.at = 0

    def add(self, text: str) -> None:
        """The next part of it has come."""
        if new := text[max(self.shown - self.at, 0) :]:
            self.show(new)
        self.at += len(text)
        self.shown = max(self.shown, self.at)


def _of_shell(code: int | None) -> int:
    """An exit status as a shell gives it: 128 and the number of the signal that ended the process."""
    if code is None or code == 0:
        return 1
    return 128 - code if code < 0 else code


def _refuse(address: str) -> None:
    """Raise if this is no URL, if nobody listens there, or Ray cannot be asked to talk to them."""
    if not is_installed():
        raise ClusterError("Ray is not installed; pip install 'grndist[cluster]'")
    parts = urlsplit(address)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ClusterError(f"{address}: the URL of a cluster's job server was expected, e.g. http://HEAD:8265")
    if parts.username or parts.password:
        raise ClusterError(f"{parts.scheme}://...@{parts.hostname}: leave user name and password out of the address")
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ClusterError(
            f"{address}: nobody answers there ({error.strerror or error}); the job server listens on the head's "
            "loopback unless Ray is told otherwise: ssh -L 8265:localhost:8265 HEAD, then --address "
            "http://localhost:8265"
        ) from error
