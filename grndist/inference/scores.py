"""Every score of a network on disk: a Zarr group that zarr and xarray read.

`scores` is float32 [regulator, target], 0 where there is no edge, in chunks of row blocks; `regulator` and `target`
hold the names of its rows and columns.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from grndist.files import written_aside
from grndist.inference.network import ROWS, InferenceError, Network
from grndist.networks.strongest import Block
from grndist.storage import is_remote, refuse_taken

COLUMNS_PER_CHUNK = 4096
BYTES = 4  # of a score
MIB = 2**20


def refuse_scores(where: str, overwrite: bool = False) -> None:
    """Raise unless scores can be written to `where`; call it before long work.

    Raises:
        UserError: it is a URL, lacks the ending .zarr, exists, or its folder does not.
    """
    if is_remote(where):
        raise InferenceError(f"{where}: scores are written to this machine only; give a path, and copy the folder")
    if Path(where).suffix != ".zarr":
        raise InferenceError(f"{where}: scores are a Zarr group; give a name that ends in .zarr")
    refuse_taken(where, overwrite)


@contextmanager
def writing_scores(path: Path, network: Network, overwrite: bool = False) -> Iterator[Callable[[Block], None]]:
    """Yield what writes a block; the group is at `path` when all of the `with` block has gone well, else nothing.

    Raises:
        InferenceError: there is not enough space.
        UserError: see `files.written_aside`.
    """
    with written_aside(path, overwrite) as aside:
        _check_space(path, len(network.rows) * len(network.columns) * BYTES)
        array = _empty(aside, network)

        def write(block: Block) -> None:
            array[block.rows] = block.weights

        yield write


def described_scores(path: Path) -> str:
    """Shape and size on disk of the scores at `path`, for people."""
    regulators, targets = zarr.open_array(path / "scores", mode="r").shape
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"all scores, {regulators:,} regulators x {targets:,} targets, {size / MIB:,.1f} MiB"


def _empty(folder: Path, network: Network) -> zarr.Array:
    about = network.about
    attributes = {
        "model": about.config["model"]["kind"],
        "signed": network.model.signed,
        "store_digest": about.store_digest,
    }
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=attributes)
    for name, genes in (("regulator", network.regulators), ("target", network.targets)):
        group.create_array(name, data=genes.astype(np.dtypes.StringDType()), dimension_names=[name])
    shape = (len(network.rows), len(network.columns))
    chunks = (min(ROWS, shape[0]), min(COLUMNS_PER_CHUNK, shape[1]))
    return group.create_array(
        "scores", shape=shape, chunks=chunks, dtype="float32", dimension_names=["regulator", "target"]
    )


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InferenceError(
            f"{path}: the scores need {needed / MIB:,.0f} MiB and {free / MIB:,.0f} MiB are free there; free some "
            "space, choose another place, or limit them with --regulators or --targets"
        )
