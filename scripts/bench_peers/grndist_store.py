"""grndist's own loader.

python grndist_store.py STORE GENES inline|dask none|log1p STREAMS
"""

import itertools
import sys

from serve import serve

from grndist.data.normalise import ExpressionConfig
from grndist.data.store import open_store
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import ShuffledPlan, cells_per_window
from grndist.data.view import whole

CELLS = 2048


def main(path: str, n_genes: int, decoding: str, transform: str, streams: int) -> None:
    store = open_store(path)
    window = cells_per_window(streams, store.bytes_per_cell)
    plan = ShuffledPlan(store.n_cells, store.n_genes, CELLS, n_genes, 0, streams, cells_per_window=window)
    expression = ExpressionConfig.model_validate({"transform": transform})
    loader = Loader(whole(store), plan, expression, ahead=decoding == "dask")
    batches = (loader.batch_at(step).expression for step in itertools.count())
    serve(batches, (CELLS, n_genes), loader.held)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
