"""The two ends of a board: the first worker's, which tells, and that of the process that started the run."""

import logging
import pickle
import time
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import ray

from grndist.runs.steps import News
from grndist.runs.worker import Line

SECONDS_BETWEEN_MESSAGES = 0.5
SECONDS_TO_ARRIVE = 30  # that the last message of a worker has


@dataclass
class Message:
    """What has happened since the one before."""

    news: News | None = None  # the last
    numbers: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # by step
    sayings: list[str] = field(default_factory=list)  # lines for people

    def __bool__(self) -> bool:
        return bool(self.news or self.numbers or self.sayings)


def taken(board: Any) -> list[Message]:
    """What the first worker has told since the last call."""
    found: list[bytes] = ray.get(board.take.remote())
    return [pickle.loads(message) for message in found]


class Teller:
    """The first worker's end: messages leave now and then, and training waits for none of them."""

    def __init__(self, board: Any):
        self._board = board
        self._message = Message()
        self._sent = 0.0
        self._answer: Any = None
        self._stop = False
        self._lock = RLock()  # warnings of other threads, too, are forwarded

    def line(self) -> Line:
        """What training knows of it."""
        return Line(self._log, self._show, self._say, self._wants_stop)

    def close(self) -> None:
        """Send what is left, and wait until it has arrived."""
        self._send()
        if self._answer is not None:
            ray.get(self._answer, timeout=SECONDS_TO_ARRIVE)

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        with self._lock:
            self._message.numbers.append((step, numbers))

    def _show(self, news: News) -> None:
        self._message.news = news
        if time.monotonic() - self._sent > SECONDS_BETWEEN_MESSAGES:
            self._send()

    def _say(self, line: str) -> None:
        with self._lock:
            self._message.sayings.append(line)
        self._send()

    def _send(self) -> None:
        with self._lock:
            if self._message:
                self._wants_stop()  # of the answer before
                self._answer = self._board.tell.remote(pickle.dumps(self._message))
                self._message, self._sent = Message(), time.monotonic()

    def _wants_stop(self) -> bool:
        with self._lock:
            if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
                self._stop = self._stop or ray.get(self._answer)
                self._answer = None
            return self._stop


class Forwarded(logging.Handler):
    """Brings warnings of a worker to the process that started the run."""

    def __init__(self, line: Line):
        super().__init__(logging.WARNING)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self._line.say(record.getMessage())
