"""Reading what 10x Genomics' Cell Ranger writes: a folder with matrix.mtx, or an h5 of one genome."""

from pathlib import Path

import anndata
from scipy import sparse

from grndist.data.sources.source import Source, SourceError, SourceOptions, plain, readable
from grndist.genes import some


def read_10x_folder(path: Path, options: SourceOptions) -> Source:
    """Read Cell Ranger's folder: version 3 (gzip, features.tsv) or 2 (plain, genes.tsv); names may have a prefix."""
    import scanpy

    prefix = _10x_prefix(path)
    with readable(path, "10x folder"):
        return _from_10x(scanpy.read_10x_mtx(path, make_unique=False, gex_only=False, prefix=prefix), "10x folder")


def read_10x_h5(path: Path) -> Source:
    """Read Cell Ranger's h5, version 3 (group matrix) or 2 (one group, called as the genome)."""
    import scanpy

    with readable(path, "10x h5"):
        return _from_10x(scanpy.read_10x_h5(path, gex_only=False), "10x h5")


def _10x_prefix(path: Path) -> str:
    names = {file.name for file in path.iterdir()}
    prefixes = sorted({name.partition("matrix.mtx")[0] for name in names if "matrix.mtx" in name})
    if len(prefixes) != 1:
        found = f"several matrices ({some(prefixes)})" if prefixes else f"no matrix.mtx among {some(sorted(names))}"
        raise SourceError(f"{path}: a 10x folder with one matrix.mtx was expected, found {found}; give another folder")
    kinds = [["matrix.mtx", "genes.tsv", "barcodes.tsv"], ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"]]
    missing = [[prefixes[0] + name for name in kind if prefixes[0] + name not in names] for kind in kinds]
    if all(missing):
        raise SourceError(
            f"{path}: beside the matrix there is no {some(min(missing, key=len))}; expected are matrix.mtx, genes.tsv "
            "and barcodes.tsv, or matrix.mtx.gz, features.tsv.gz and barcodes.tsv.gz (compress plain ones with gzip)"
        )
    return prefixes[0]


def _from_10x(data: anndata.AnnData, kind: str) -> Source:
    """Keep gene expression; guides and antibodies are not genes."""
    if "feature_types" in data.var:
        is_gene = (data.var["feature_types"] == "Gene Expression").to_numpy()
        kind += "" if is_gene.all() else f", {int((~is_gene).sum())} features of other types left out"
        data = data[:, is_gene]
    return Source(sparse.csr_matrix(data.X), plain(data.obs), plain(data.var), logged=False, description=kind)
