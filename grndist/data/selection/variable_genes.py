"""Highly variable genes by scanpy's own routine, which is given the view as a Dask array of blocks to bound memory."""

import warnings
from functools import partial

import numpy as np
from jaxtyping import Bool
from scipy import sparse

from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.view import View
from grndist.errors import UserError

CELLS = 4096  # in a block
THREADS = 2  # each holds some blocks


def highly_variable(view: View, n_top: int) -> Bool[np.ndarray, " genes"]:
    """Which genes of the view are its `n_top` most variable ones (scanpy's flavor "seurat", Satija et al. 2015).

    scanpy is given log1p values, library size normalised to the view's median total: as stored where they are logged,
    otherwise transformed here. Genes tied with the last one are all chosen; genes without variance never are, so fewer
    than `n_top` may be found.

    Raises:
        UserError: the values are neither counts nor logged, or no gene varies.
    """
    import anndata
    import dask
    import scanpy

    if view.state == "continuous":
        raise UserError(
            f"{view.place}: genes.highly_variable needs counts or log1p values, but the store's state is continuous; "
            "leave it out, or ingest the source again with --state log1p if that is what its values are"
        )
    data = anndata.AnnData(_logged(view))
    data.uns["log1p"] = {}
    with dask.config.set(scheduler="threads", num_workers=THREADS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`n_top_genes` > number of normalized dispersions")
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # genes without variance have no dispersion
        try:
            found = scanpy.pp.highly_variable_genes(data, n_top_genes=n_top, flavor="seurat", inplace=False)
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{view.place}: scanpy cannot rank the {view.n_genes} genes of {view.n_cells} cells by their "
                f"variability ({error}); leave genes.highly_variable out, or filter less"
            ) from error
    return found["highly_variable"].to_numpy(dtype=bool)


def _logged(view: View):  # type: ignore[no-untyped-def]  # a Dask array [cells, genes] of CSR blocks
    import dask.array

    empty = sparse.csr_matrix((0, 0), dtype=np.float64)
    parts = []
    for start in range(0, view.n_cells, CELLS):
        stop = min(start + CELLS, view.n_cells)
        task = dask.delayed(partial(_block, view, start, stop), pure=False)()  # an argument would be taken apart
        parts.append(dask.array.from_delayed(task, (stop - start, view.n_genes), meta=empty))
    return dask.array.concatenate(parts)


def _block(view: View, start: int, stop: int) -> sparse.csr_matrix:
    values = view.store.read_cells(view.rows[start:stop])
    logged = expression(values, view.totals[start:stop], view, ExpressionConfig())
    return sparse.csr_matrix(logged, dtype=np.float64)
