"""The one pass over the cells that moments take, as tasks on a Ray cluster, each over a part of the cells."""

from itertools import pairwise

import numpy as np
import ray
from jaxtyping import Float64

from grndist.data.facts import Pass
from grndist.data.moments import InOrder, Sums, check, part, shift_of
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import Perturbations
from grndist.data.view import View
from grndist.launch.cluster import own_error
from grndist.progress import track
from grndist.runs.config import WorkersConfig


def pass_on_ray(workers: WorkersConfig) -> Pass:
    """A pass in `workers.max` tasks, as many at once as the cluster has room for; a task that is lost runs again.

    The tasks' sums are added in the order of the cells, so the same number of tasks gives the same bits, whichever ends
    first. Two sums are in the memory of this process at a time, one in that of every task.
    """

    def pass_over(view: View, expression: ExpressionConfig, perturbations: Perturbations, products: bool) -> Sums:
        check(expression)
        n_blocks, shift = InOrder(view.n_cells, view.n_genes).n_blocks, shift_of(view, expression)
        bounds = [n_blocks * task // workers.max for task in range(workers.max + 1)]
        task = ray.remote(
            num_cpus=workers.cpus_per_worker, num_gpus=0, scheduling_strategy="SPREAD", max_retries=workers.max_failures
        )(_part)
        given = [ray.put(value) for value in (view, perturbations)]
        tasks = [task.remote(*given, expression, range(*ends), shift, products) for ends in pairwise(bounds)]
        found = None
        with own_error():
            for _ in track(range(len(tasks)), f"moments, {len(tasks)} tasks", len(tasks)):
                next_one: Sums = ray.get(tasks.pop(0))
                found = next_one if found is None else found + next_one
        assert found is not None
        return found

    return pass_over


def _part(
    view: View, perturbations: Perturbations, expression: ExpressionConfig, blocks: range,
    shift: Float64[np.ndarray, " genes"], products: bool,
) -> Sums:  # fmt: skip
    return part(view, expression, perturbations, blocks, shift=shift, products=products)
