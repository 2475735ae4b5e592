"""The same training on one process and on several."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from grndist.data.ingest.build import write_store
from grndist.models.layers import ModelError
from grndist.training.distributed import LARGE
from grndist.training.loop import TrainingError
from grndist.workers import ALONE
from tests.conftest import genes, small_counts
from tests.models.batches import batch_of
from tests.training import together
from tests.training.team import Team
from tests.training.together import CASES, Job, Outcome

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}  # of losses, predictions, adjacency
PARAMETER_LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 cells of 40 genes, eight of which are perturbed."""
    counts, obs = small_counts(n_genes=40)
    labels = ["non-targeting", "elsewhere", *(f"g{gene}" for gene in range(0, 40, 5))]
    obs["perturbation"] = np.random.default_rng(1).choice(labels, size=len(obs), p=[0.5, 0.1, *[0.05] * 8])
    path = tmp_path_factory.mktemp("together") / "store.zarr"
    write_store(path, counts, obs, genes(40), "counts", {"name": "made here"})
    return path


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    team = Team(4, tmp_path_factory.mktemp("team"))
    yield team
    team.close()


@pytest.fixture(scope="module")
def reference(team: Team):
    return cache(lambda job: team.run(1, together.alone, job)[0])


def agree(found: list[Outcome], wanted: Outcome, job: Job) -> None:
    """Whether several workers saw the cells, the losses and the network of one process."""
    merged = {}
    for outcome in found:
        assert not merged.keys() & outcome.cells.keys()
        merged |= outcome.cells
        assert outcome.genes == wanted.genes
    assert merged == wanted.cells
    first, limit = found[0], LIMITS[job.dtype]
    assert len(wanted.losses) == job.steps
    assert [ours.keys() for ours in first.losses] == [theirs.keys() for theirs in wanted.losses]
    ours, theirs = ([value for step in losses for value in step.values()] for losses in (first.losses, wanted.losses))
    np.testing.assert_allclose(ours, theirs, rtol=limit, atol=limit)
    torch.testing.assert_close(first.predictions, wanted.predictions, rtol=limit, atol=limit)
    torch.testing.assert_close(first.adjacency, wanted.adjacency, rtol=limit, atol=limit)


def same_bits(found: list[Outcome]) -> None:
    """Whether workers have stayed alike."""
    for other in found[1:]:
        assert other.losses == found[0].losses
        assert other.bytes_sent == found[0].bytes_sent
        assert all(torch.equal(value, found[0].parameters[name]) for name, value in other.parameters.items())


def same_parameters(found: dict[str, Tensor], wanted: dict[str, Tensor], job: Job) -> None:
    """Whether they differ by rounding: relative to a tensor's largest value, beside what is noise around 0."""
    for name, value in wanted.items():
        if value.is_floating_point():
            limit = PARAMETER_LIMITS[job.dtype] * value.abs().max() + torch.finfo(job.dtype).eps
            assert (found[name] - value).abs().max() <= limit, name


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(
    "world", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow), 4]
)
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_workers_is_one_process(team: Team, reference, store: Path, case: str, world: int, dtype):
    job = Job(store, case, dtype, sgd=True)
    wanted, found = reference(job), team.run(world, together.shared, job)
    agree(found, wanted, job)
    same_bits(found)
    same_parameters(found[0].parameters, wanted.parameters, job)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"catran_submission"}))
def test_with_the_optimisers_of_the_presets_losses_and_network_are_those_of_one_process(
    team: Team, reference, store: Path, case: str, dtype
):
    """Lion and Adam amplify rounding where a gradient is exactly 0, so parameters are not compared.

    The submission is left out: a scale that the next BatchNorm takes back has a gradient of that one's epsilon only, so
    that Lion takes full steps along its rounding, which reach the predictions (1e-7 in float64).
    """
    job = Job(store, case, dtype, sgd=False)
    found = team.run(3, together.shared, job)
    agree(found, reference(job), job)
    same_bits(found)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, torch.float64) for case in CASES), ("catran", torch.float32), ("dazzle", torch.float32)],
)
def test_a_worker_without_any_cells_changes_nothing(team: Team, reference, store: Path, case: str, dtype):
    job = Job(store, case, dtype, sgd=True, steps=8, streams=3)
    wanted, found = reference(job), team.run(4, together.shared, job)
    agree(found, wanted, job)
    same_bits(found)
    same_parameters(found[0].parameters, wanted.parameters, job)


# --- one step ---

GENES = list(range(0, 40, 2))
STEPS = {
    "a share is empty": ([20, 0, 30], [-1, 0, 10]),
    "fewer streams than workers": ([20, 30], [-1, 0, 10]),
    "all cells are controls": ([20, 10, 30], [-1]),
    "no label is of the subset": ([20, 10, 30], [-1, -2, 5]),
    "labels are of one worker": ([20, 10, 30], None),
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_a_step_add_up(team: Team, store: Path, case: str, kind: str):
    counts, labels = STEPS[kind]
    n = sum(counts)
    perturbed = [0, 10, 10, 20, -2] * 4 + [-1] * (n - 20) if labels is None else (labels * n)[:n]
    batch = batch_of(n, GENES, perturbed, counts, epoch=5, dtype=torch.float64)
    job = Job(store, case, torch.float64, sgd=True)
    wanted, found = together.step_of(ALONE, job, batch), team.run(3, together.step_of, job, batch)
    assert all(step.losses == found[0].losses for step in found)
    assert found[0].losses == pytest.approx(wanted.losses, rel=1e-11, abs=1e-13)
    for step in found:
        assert step.gradients.keys() == wanted.gradients.keys()
        for name, gradient in wanted.gradients.items():
            torch.testing.assert_close(step.gradients[name], gradient, rtol=1e-9, atol=1e-12)
            assert torch.equal(step.gradients[name], found[0].gradients[name])


@pytest.mark.parametrize("case", CASES)
def test_only_what_a_step_touches_travels(team: Team, store: Path, case: str):
    job, batch = Job(store, case, torch.float32, sgd=True), batch_of(30, GENES, counts=[10, 20])
    sizes = {step.bytes_sent for step in team.run(2, together.step_of, job, batch)}
    model = together.state_of(job).model
    touched = {id(parameter): len(rows) / len(parameter) for parameter, rows in model.touched_rows(batch.genes)}
    wanted = together.step_of(ALONE, job, batch)
    numbers = {name: gradient.numel() for name, gradient in wanted.gradients.items()}
    shares = {name: touched.get(id(parameter), 1) for name, parameter in model.named_parameters()}
    assert sizes == {4 * (len(wanted.losses) + sum(n * shares[name] for name, n in numbers.items()))}
    assert sum(numbers.values()) * 4 < sum(parameter.nbytes for parameter in model.parameters()) or touched


def test_a_loss_that_is_not_finite_stops_all_workers_alike(team: Team, store: Path):
    errors = team.run(3, together.poisoned, Job(store, "catran", torch.float32, sgd=True, steps=4))
    assert all(isinstance(error, TrainingError) for error in errors)
    assert "at step 2" in str(errors[0])
    assert len({str(error) for error in errors}) == 1


@pytest.mark.parametrize("n_batches", [2, 5])
def test_the_held_out_loss_is_that_of_one_process(team: Team, store: Path, n_batches: int):
    job = Job(store, "grn_vae", torch.float64, sgd=True)
    found = team.run(3, together.validated, job, n_batches)
    assert found == [found[0]] * 3
    assert found[0] == pytest.approx(together.validated(ALONE, job, n_batches), rel=1e-12)


@pytest.mark.parametrize("case", ["catran", "grn_vae"])
def test_the_plain_form_is_for_one_process(team: Team, store: Path, case: str):
    for error in team.run(2, together.refused, case):
        assert isinstance(error, ModelError)
        assert re.search("form=plain is trained by one process.* 2 workers; set model.form=fast", str(error))


# --- messages ---


def test_sums_over_workers(team: Team):
    for first, second, left in team.run(3, together.summed):
        assert torch.equal(first, torch.full((2, 3), 6.0))  # 1 + 2 + 3
        assert second.shape == ()
        assert second == 60
        assert torch.equal(left, torch.ones(2, 3) * left[0, 0])  # what was given stays
        assert left[0, 0].item() in {1, 2, 3}


def test_sums_in_place_large_small_and_strided(team: Team):
    for sent, small, strided, large in team.run(3, together.added):
        assert torch.equal(small, torch.full((4,), 6.0))
        assert torch.equal(strided, torch.full((3, 2), 6.0))
        assert torch.equal(large, torch.full((LARGE,), 6.0))
        assert sent == 4 * (4 + 6 + LARGE)


@pytest.mark.parametrize("content", [b"", b"some bytes"])
def test_what_the_first_worker_says_reaches_all(team: Team, content: bytes):
    assert team.run(3, together.told, content) == [content] * 3
