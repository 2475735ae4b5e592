"""What the first worker and the process that started the run tell each other, by way of an actor on the cluster."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import ray

from grndist.runs.steps import News
from grndist.runs.worker import Line

SECONDS_BETWEEN_MESSAGES = 0.5
SECONDS_UNTIL_NOTED = 30  # of what must not get lost


@dataclass
class Messages:
    """What has been told since it was last asked for."""

    news: News | None = None  # the last
    numbers: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # by step
    sayings: list[str] = field(default_factory=list)  # lines for people

    def __bool__(self) -> bool:
        return bool(self.news or self.numbers or self.sayings)


class Board:
    """Kept by an actor: messages, whether to stop, and why nobody need try again."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._stop = False
        self._mistake = ""

    def tell(self, messages: Messages) -> bool:
        """Take messages of the first worker; whether it is to stop."""
        kept = self._messages
        self._messages = Messages(
            messages.news or kept.news, kept.numbers + messages.numbers, kept.sayings + messages.sayings
        )
        return self._stop

    def take(self) -> Messages:
        """The messages since the last call."""
        taken, self._messages = self._messages, Messages()
        return taken

    def stop(self) -> None:
        """Ask the workers to stop."""
        self._stop = True

    def note(self, mistake: str) -> None:
        """Take note of a mistake that another attempt would not mend."""
        self._mistake = self._mistake or mistake

    def mistake(self) -> str:
        """The first that was noted; empty if none was."""
        return self._mistake


class Teller:
    """The first worker's end: messages leave now and then, and nothing waits for them."""

    def __init__(self, board: Any):
        self._board = board
        self._messages = Messages()
        self._sent = 0.0
        self._answer: Any = None
        self._stop = False

    def line(self) -> Line:
        """What training knows of it."""
        return Line(self._log, self._show, self._say, self._wants_stop)

    def close(self) -> None:
        """Send what is left, and wait until it has arrived."""
        self._send()
        if self._answer is not None:
            ray.get(self._answer, timeout=SECONDS_UNTIL_NOTED)

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        self._messages.numbers.append((step, numbers))

    def _show(self, news: News) -> None:
        self._messages.news = news
        if time.monotonic() - self._sent > SECONDS_BETWEEN_MESSAGES:
            self._send()

    def _say(self, line: str) -> None:
        self._messages.sayings.append(line)
        self._send()

    def _send(self) -> None:
        if self._messages:
            self._answer = self._board.tell.remote(self._messages)
            self._messages, self._sent = Messages(), time.monotonic()

    def _wants_stop(self) -> bool:
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
