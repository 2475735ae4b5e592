"""A run: from a run file to a run directory. The one place that puts store, plan, model, loop and tracking together.

runs/<name>/config.yaml       the resolved settings
checkpoints/      the last two
metrics.jsonl     losses and speed over steps
tracking.json     where MLflow keeps the run
"""

from grndist.runs.config import RunConfig, TrainingConfig, load_run, presets
from grndist.runs.folder import RunError, tracked
from grndist.runs.train import Interrupted, RunSummary, train_run

__all__ = [
    "Interrupted",
    "RunConfig",
    "RunError",
    "RunSummary",
    "TrainingConfig",
    "load_run",
    "presets",
    "tracked",
    "train_run",
]
