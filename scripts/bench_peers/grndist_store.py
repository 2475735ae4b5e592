"""grndist's own loader.

python grndist_store.py STORE GENES inline|dask none|log1p STREAMS shuffled|balanced
"""

import itertools
import sys

from serve import serve

from grndist.data.normalise import ExpressionConfig
from grndist.data.store import open_store
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import BalancedPlan, Plan, ShuffledPlan, cells_per_window
from grndist.data.view import whole

CELLS = 2048


def main(path: str, n_genes: int, decoding: str, transform: str, streams: int, sampling: str) -> None:
    store = open_store(path)
    window = cells_per_window(streams, store.bytes_per_cell)
    plan: Plan = ShuffledPlan(store.n_cells, store.n_genes, CELLS, n_genes, 0, streams, cells_per_window=window)
    if sampling == "balanced":  # 8 cells of each of 192 perturbations, and 512 control cells
        plan = BalancedPlan(
            store.perturbed, store.n_genes, CELLS, n_genes, 0, streams, cells_per_label=8, control_share=0.25,
            cells_per_window=window,
        )  # fmt: skip
    expression = ExpressionConfig.model_validate({"transform": transform})
    loader = Loader(whole(store), plan, expression, ahead=decoding == "dask")
    batches = (loader.batch_at(step).expression for step in itertools.count())
    serve(batches, (CELLS, n_genes), loader.held)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6])
