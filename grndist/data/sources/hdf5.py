"""Opening HDF5: an h5ad (X, a layer or .raw; sparse or dense), or a 10x h5, whatever the file's ending."""

from pathlib import Path

import h5py

from grndist.data.sources.annotated import annotated
from grndist.data.sources.container import opened
from grndist.data.sources.source import SourceError, SourceOptions, Unchecked, quiet
from grndist.data.sources.tenx_h5 import LEGACY, MATRIX, VERSION_3, found_in_10x
from grndist.genes import some


def open_hdf5(path: Path, options: SourceOptions) -> Unchecked:
    """Open an h5ad or a 10x h5."""
    with opened(path) as file, quiet():
        if "obs" in file and "var" in file:
            return annotated(path, file, options, "h5ad")
        groups = {name: set(item) for name, item in file.items() if isinstance(item, h5py.Group)}
        if options.raw or options.layer is not None:
            raise SourceError(f"{path} is not an h5ad: --layer and --raw do not apply; leave them out here")
        if groups.get("matrix", set()) >= MATRIX | VERSION_3:
            return found_in_10x(path, file, "matrix")
        if len(groups) == 1 and next(iter(groups.values())) >= MATRIX | LEGACY:
            return found_in_10x(path, file, next(iter(groups)))
    raise SourceError(
        f"{path} is neither an h5ad (no obs, var) nor a 10x h5 of one genome (no matrix with features and barcodes): "
        f"it holds {some(sorted(groups)) or 'no groups'}; write it with anndata's write_h5ad"
    )
