"""How the run of a block that ended is left in MLflow."""

from contextlib import nullcontext
from pathlib import Path

import mlflow
import pytest

from grndist.errors import UserError
from grndist.runs import Interrupted
from grndist.runs.folder import closed_at_end
from grndist.tracking import TrackingConfig, open_parent


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (Interrupted("stopped", 2), "KILLED"), (UserError("no"), "FAILED"), (OSError(), "FAILED")],
)
def test_a_run_ends_as_its_block_did(tmp_path: Path, error: Exception | None, status: str):
    tracker = open_parent(TrackingConfig(), tmp_path, "above")
    with nullcontext() if error is None else pytest.raises(type(error)), closed_at_end(tracker):
        if error is not None:
            raise error
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(tracker.run_id).info.status == status
