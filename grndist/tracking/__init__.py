"""Where a run's numbers go besides its own directory: an MLflow run, or nowhere.

MLflow is a copy, never the original (that is the run directory's metrics.jsonl), so a failure here costs a warning and
nothing else. `tracker` never waits, `mlflow_run` writes and waits; MLflow executes `logged_network`, which nothing
imports.
"""

from grndist.tracking.mlflow_run import Status
from grndist.tracking.tracker import Tracker, TrackingConfig, open_tracker

__all__ = ["Status", "Tracker", "TrackingConfig", "open_tracker"]
