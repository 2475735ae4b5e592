"""How a run goes, as the process that started its workers sees it: shown, tracked, stopped, and given up."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from grndist.errors import UserError
from grndist.launch.cluster import alive, described_room, room
from grndist.launch.messages import Message, taken
from grndist.launch.ray_train import Fit
from grndist.runs.config import WorkersConfig
from grndist.runs.steps import News
from grndist.runs.stopping import Interrupted
from grndist.runs.train import interrupted, news_bar
from grndist.tracking import Tracker

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 60  # that workers, when asked, may be silent before their last checkpoint

logger = logging.getLogger(__name__)


@dataclass
class Following:
    """A run that workers train."""

    workers: WorkersConfig
    board: Any
    tracker: Tracker
    signals: list[int]  # that have come
    step: int  # the last that is known of
    steps: int  # of the whole training
    heard: float = field(default_factory=time.monotonic)  # when the workers told something last
    asked: float | None = None  # when they were asked to stop
    have_begun: bool = False

    def to_the_end(self, fit: Fit) -> None:
        """Follow the workers until they have ended.

        Raises:
            UserError: there has not been room for them for longer than their start may take.
            Interrupted: a signal has come, and they did not end in time.
        """
        nodes, over = alive(), False
        if room(self.workers) < self.workers.min:
            logger.info(
                "waiting up to %g s for room: the run needs %d %s", self._patience, self.workers.min,
                described_room(self.workers),
            )  # fmt: skip
        with news_bar(self.step, self.steps) as show:
            while not over:
                over = fit.is_over(SECONDS_BETWEEN_LOOKS)
                for message in taken(self.board):
                    self._pass_on(message, show)
                if alive() != nodes:
                    logger.info("the cluster has %d nodes now (%d before)", alive(), nodes)
                    nodes = alive()
                if not over:
                    self._stop_if_asked()
                    self._refuse_to_wait()

    def explained(self, error: BaseException) -> UserError:
        """Ray Train's reasons, in one line."""
        if self.signals:
            return interrupted(self.step, self.steps, "the last checkpoint", self.signals[0])
        if room(self.workers) < self.workers.min:
            return _no_room(self.workers)
        text = str(error).strip()
        reason = text.splitlines()[-1] if text else type(error).__name__
        return UserError(
            f"the workers were lost, or could not be started, too often ({reason}); see the logs of Ray (`ray logs`, "
            "/tmp/ray/session_latest/logs), raise workers.max_failures or workers.start_timeout, and go on with "
            "--resume"
        )

    def _pass_on(self, message: Message, show: Callable[[News], None]) -> None:
        """Bring a message to people and to tracking."""
        self.heard, self.have_begun = time.monotonic(), True
        for saying in message.sayings:
            logger.info("%s", saying)
        for step, numbers in message.numbers:
            self.tracker.log_metrics(step, numbers)
        if message.news is not None:
            show(message.news)
            self.step = message.news.step

    def _stop_if_asked(self) -> None:
        if not self.signals:
            return
        if not self.have_begun:
            raise Interrupted(
                f"stopped before step {self.step + 1}, while workers were still to be started: there is nothing to "
                "save; go on with the same command and --resume", self.signals[0],
            )  # fmt: skip
        if self.asked is None:
            self.asked = time.monotonic()
            self.board.stop.remote()
        if time.monotonic() - max(self.asked, self.heard) > SECONDS_TO_STOP:
            raise interrupted(self.step, self.steps, "the last checkpoint", self.signals[0])

    def _refuse_to_wait(self) -> None:
        if time.monotonic() - self.heard > self._patience and room(self.workers) < self.workers.min:
            raise _no_room(self.workers)

    @property
    def _patience(self) -> float:
        """Seconds without news, and without room for the fewest workers, after which a run is given up."""
        return self.workers.start_timeout * (self.workers.controller_failure_limit + 1)


def _no_room(workers: WorkersConfig) -> UserError:
    fewer = "" if workers.is_elastic else f"--workers 1..{workers.max} goes on with as many as there are; "
    return UserError(
        f"the run needs {workers.min} {described_room(workers)}. Add machines or lower the number of workers "
        f"({fewer}the results are the same), then go on with --resume"
    )
