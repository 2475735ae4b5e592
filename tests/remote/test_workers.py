"""A run at s3:// that several workers train: the first of them brings the checkpoints there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.storage import open_storage
from grndist.training import checkpoint
from tests.launch.runs_on_ray import config_of

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, of its start and its end


@pytest.fixture
def cluster(bucket: str) -> Iterator[None]:
    """Started where the bucket's credentials are in the environment."""
    ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_run_at_a_url(tmp_path: Path, pristine_store: Path, bucket: str, cluster: None):
    from grndist.launch.train import train_on_ray

    config = config_of(tmp_path, pristine_store, f"runs={bucket}/runs")
    summary = train_on_ray(config)
    there = open_storage(f"{bucket}/runs/r")
    assert summary.checkpoint == f"{there.url}/checkpoints/step-00000060"
    assert checkpoint.whole(there.sizes()) == ["step-00000050", "step-00000060"]
    assert json.loads(there.read("tracking.json"))["status"] == "FINISHED"
    assert [json.loads(line)["step"] for line in there.read("metrics.jsonl").splitlines()] == list(range(5, 61, 5))
    assert len(edges_of_run(there.url, 5, None, None)) == 5
    assert train_on_ray(config, resume=True).steps == 60
    with pytest.raises(UserError, match="cannot replace a run at a URL"):
        train_on_ray(config, overwrite=True)
