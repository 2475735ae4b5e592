"""A run: from a run file to a run directory. The one place that puts store, plan, model, loop and tracking together.

    runs/<name>/config.yaml       the resolved settings
                checkpoints/      the last two
                metrics.jsonl     losses and speed over steps
                augmentation.json what pilots have measured, with model.augmentation auto
                losses.png        the losses, drawn
                tracking.json     where MLflow keeps the run
                tracking-spool/   what MLflow has not taken yet
                owner             at a URL: the token of the process that writes there

A run at a URL is worked on in a temporary folder and copied up as it goes (`mirror`).
"""

from grndist.runs.config import RunConfig, TrainingConfig, load_run, presets
from grndist.runs.folder import tracked
from grndist.runs.stopping import Interrupted
from grndist.runs.train import RunSummary, train_run
from grndist.runs.workplace import RunError

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
