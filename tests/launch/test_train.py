"""Training on a real Ray cluster of this machine: what one process does, several do; whatever happens to them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
import yaml

from grndist.errors import UserError
from grndist.runs import Interrupted, load_run, train_run
from grndist.training import checkpoint
from tests.launch.runs_on_ray import apart, config_of, same_bits, step_of, until, workers_below

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, of its start and its end

LONG = ["training.steps=800", "training.checkpoint_every=100"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something done meanwhile; it must be over, and must not have failed, when the test ends."""
    threads, failures = [], []

    def begin(work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - the test fails with it
                failures.append(error)

        threads.append(Thread(target=guarded, daemon=True))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not failures


def test_two_workers_train_what_one_process_does(tmp_path: Path, pristine_store: Path):
    from grndist.launch.train import train_on_ray

    shared = train_on_ray(config_of(tmp_path, pristine_store, "name=shared", "training.validation=0.2"))
    alone = train_run(config_of(tmp_path, pristine_store, "name=alone", "training.validation=0.2", "workers=null"))
    assert shared.steps == alone.steps == 60
    assert apart(alone.checkpoint, shared.checkpoint) < 1e-4
    for name, value in alone.losses.items():
        assert shared.losses[name] == pytest.approx(value, rel=1e-4)
    looks = [checkpoint.describe(Path(one.checkpoint)).looks for one in (alone, shared)]
    assert [look.loss for look in looks[0]] == pytest.approx([look.loss for look in looks[1]], rel=1e-4)
    numbers = [(Path(one.folder) / "metrics.jsonl").read_text().splitlines() for one in (alone, shared)]
    assert len(numbers[0]) == len(numbers[1])


def test_what_happens_to_workers_changes_nothing(
    tmp_path: Path, pristine_store: Path, later: Callable[[Callable[[], None]], None]
):
    """One is killed in mid-epoch; and a run that is asked to stop goes on with --resume. Bit for bit the same."""
    from grndist.launch.train import train_on_ray

    undisturbed = train_on_ray(config_of(tmp_path, pristine_store, "name=undisturbed", *LONG))

    def kill() -> None:
        until(lambda: step_of(tmp_path / "runs" / "killed") >= 100)
        workers_below(os.getpid())[-1].kill()

    later(kill)
    killed = train_on_ray(config_of(tmp_path, pristine_store, "name=killed", *LONG))
    assert killed.steps == 800
    assert same_bits(killed.checkpoint, undisturbed.checkpoint)
    assert killed.losses == undisturbed.losses

    def interrupt() -> None:
        until(lambda: step_of(tmp_path / "runs" / "stopped") >= 100)
        os.kill(os.getpid(), signal.SIGINT)

    later(interrupt)
    with pytest.raises(Interrupted, match="go on with the same command and --resume"):
        train_on_ray(config_of(tmp_path, pristine_store, "name=stopped", *LONG))
    assert 100 < step_of(tmp_path / "runs" / "stopped") < 800
    resumed = train_on_ray(config_of(tmp_path, pristine_store, "name=stopped", *LONG), resume=True)
    assert same_bits(resumed.checkpoint, undisturbed.checkpoint)


def test_a_name_that_exists_continues_only_when_asked(tmp_path: Path, pristine_store: Path):
    from grndist.launch.train import train_on_ray

    first = train_run(config_of(tmp_path, pristine_store, "workers=null"))
    with pytest.raises(UserError, match="exists already; go on with --resume"):
        train_on_ray(config_of(tmp_path, pristine_store))
    assert train_on_ray(config_of(tmp_path, pristine_store), resume=True).checkpoint == first.checkpoint


def test_a_loss_that_is_not_finite_ends_the_run_with_its_message(tmp_path: Path, pristine_store: Path):
    from grndist.launch.train import train_on_ray

    with pytest.raises(UserError, match=r"the loss is .* lower training.learning_rate"):
        train_on_ray(config_of(tmp_path, pristine_store, "training.learning_rate=1e38"))


def test_workers_that_do_not_fit_are_refused_in_time(tmp_path: Path, pristine_store: Path):
    from grndist.launch.train import train_on_ray

    settings = ["training.streams=8", "workers=5", "workers.start_timeout=4", "workers.controller_failure_limit=1"]
    with pytest.raises(UserError, match=r"needs 5 workers of 1 CPUs each; the cluster has room for 4.*--resume"):
        train_on_ray(config_of(tmp_path, pristine_store, *settings))
    with pytest.raises(UserError, match=r"needs 5 workers of 1 CPUs each; the cluster has room for 4.*--resume"):
        train_on_ray(config_of(tmp_path, pristine_store, *settings, "workers.max=6"), resume=True)


def test_moments_are_summed_by_tasks(tmp_path: Path, pristine_store: Path):
    from grndist.launch.train import train_on_ray

    file = tmp_path / "d.yaml"
    tree = {"preset": "catran_d", "store": str(pristine_store), "runs": str(tmp_path), "tracking": {"kind": "none"}}
    file.write_text(yaml.safe_dump(tree))
    alone = train_run(load_run(file, ["name=alone"]))
    shared = train_on_ray(load_run(file, ["name=shared", "workers=2"]))
    assert apart(alone.checkpoint, shared.checkpoint) < 1e-6
