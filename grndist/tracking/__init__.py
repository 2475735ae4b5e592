"""Where a run's numbers go besides its own directory: an MLflow run, or nowhere.

MLflow is a copy, never the original (that is the run directory's metrics.jsonl), so a failure here costs a warning and
nothing else. A `Tracker` never waits: what it is given goes to a spool in the run directory, and from there to MLflow,
while the run goes on or with `replay`. MLflow executes `logged_network`, which nothing imports.
"""

from grndist.tracking.beginning import Place, open_tracker
from grndist.tracking.config import TrackingConfig
from grndist.tracking.mlflow_run import Status
from grndist.tracking.parent import end_if_open, open_parent, reference
from grndist.tracking.replay import replay
from grndist.tracking.tracker import Tracker

__all__ = [
    "Place",
    "Status",
    "Tracker",
    "TrackingConfig",
    "end_if_open",
    "open_parent",
    "open_tracker",
    "reference",
    "replay",
]
