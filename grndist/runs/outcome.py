"""What is logged of a run that has ended: its network, its strongest edges and how the losses went."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

from grndist.errors import UserError
from grndist.inference import edges_of_checkpoint
from grndist.plots import loss_figure, write_figure
from grndist.runs.logged import files_at_the_end
from grndist.runs.workplace import Workplace
from grndist.storage import open_storage
from grndist.tracking import Tracker
from grndist.tracking.tracker import TOP_EDGES
from grndist.training import checkpoint

METRICS, FIGURE = "metrics.jsonl", "losses.png"
NO_LOSSES = ("step", "epoch", "cells_per_second")
CHEAP = 2000**2  # scores of a network that are ranked at the end of a run; `infer` logs the edges of larger ones

logger = logging.getLogger(__name__)


@contextmanager
def logging_outcome(place: Workplace) -> Iterator[Callable[[Tracker, Path], None]]:
    """Yields what logs the outcome of a run, given its last checkpoint; the block must end after the tracking."""
    with tempfile.TemporaryDirectory(prefix="grndist-network-") as aside:
        yield partial(_log_outcome, place, Path(aside))


def _log_outcome(place: Workplace, aside: Path, tracker: Tracker, final: Path) -> None:
    """Log the model in the checkpoint `final`, its strongest edges where that takes no time, and the losses.

    losses.png stays in the run directory. Of a run whose networks are not logged there is nothing.
    """
    if not tracker.logs_network:
        return
    tracker.log_model(files_at_the_end(place.run, place.folder / "config.yaml", final, aside))
    try:
        if len(checkpoint.describe(final).genes) ** 2 <= CHEAP:
            tracker.log_top_edges(edges_of_checkpoint(final, at_most=TOP_EDGES).table)
        losses = _losses(place)
        if len(losses) > 1:
            write_figure(loss_figure(losses), place.folder / FIGURE, overwrite=True)
            tracker.log_figure(place.folder / FIGURE)
    except UserError as error:  # the run itself is done
        logger.warning("not everything that shows the result could be logged: %s", error)


def _losses(place: Workplace) -> pd.DataFrame:
    """Losses by step; where workers have written them at a URL, from there."""
    file = place.folder / METRICS
    try:
        content = file.read_bytes() if file.exists() else open_storage(place.run).read(METRICS)
    except FileNotFoundError:  # a run that was resumed when it had ended
        return pd.DataFrame()
    rows = [json.loads(line) for line in content.splitlines()]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).set_index("step").drop(columns=list(NO_LOSSES[1:]), errors="ignore").astype(float)
