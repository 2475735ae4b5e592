"""Write an effect atlas block by block: what is interrupted goes on from the blocks that are there."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.all_pairs import TARGETS, Block, blocks_of, effects_on, screened
from grndist.evaluation.interventional.atlas import MEASURES, Atlas, open_atlas, provenance
from grndist.evaluation.interventional.cells import MEMORY, Groups, InterventionError
from grndist.files import WriteError, locked, put_in_place, refuse_existing, remove
from grndist.progress import track
from grndist.storage import is_remote

LOCK = "lock"


def refuse_atlas(where: str, overwrite: bool = False) -> None:
    """Raise unless an atlas can be written to `where`; call it before long work.

    Raises:
        UserError: it is a URL, lacks the ending .zarr, exists, or its folder does not.
    """
    if is_remote(where):
        raise InterventionError(f"{where}: an atlas is written to this machine only; give a path, and copy the folder")
    if Path(where).suffix != ".zarr":
        raise InterventionError(f"{where}: an atlas is a Zarr group; give a name that ends in .zarr")
    refuse_existing(Path(where), overwrite)


def write_atlas(
    path: Path, view: View, expression: ExpressionConfig | None = None, memory: int = MEMORY, overwrite: bool = False
) -> Atlas:
    """Write the effects of all pairs of a view and open them.

    They are written to a hidden folder beside `path`, a block of targets after the other, and get the name when all are
    there. After an interruption the same call goes on from the blocks of that folder.

    Args:
        path: of the Zarr group.
        view: the cells, and the genes that are targets.
        expression: which values are compared, before any z-score; None: the log scale.
        memory: bytes of expression held at a time; fewer mean more passes over the cells.
        overwrite: replace what is at `path`.

    Raises:
        InterventionError: there are no control cells, or no gene is perturbed.
        UserError: see `refuse_atlas`; or another process writes this atlas.
    """
    refuse_atlas(str(path), overwrite)
    config, groups = expression or ExpressionConfig(), screened(view)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.mkdir(exist_ok=True)
        with locked(partial / LOCK, f"{path}: another process is writing this atlas; wait for it"):
            _fill(partial, view, groups, config, memory)
            (partial / LOCK).unlink()
            put_in_place(partial, path)
    except OSError as error:
        remedy = "free some space and give the same command: it goes on from what is there"
        raise WriteError(path, error.strerror or str(error), remedy) from error
    return open_atlas(path)


def _fill(partial: Path, view: View, groups: Groups, config: ExpressionConfig, memory: int) -> None:
    about = provenance(view, config, groups.n_controls)
    group = _begun(partial, about)
    if group is None:
        for entry in partial.iterdir():
            if entry.name != LOCK:
                remove(entry)
        group = _empty(partial, view, groups, about)
    done: Any = group["done"]
    finished = np.asarray(done[:])
    parts = [part for part in blocks_of(groups, view.n_genes, memory) if not finished[part].all()]
    for part in track(parts, "effects on the genes", len(parts)):
        _write(group, part, effects_on(groups, np.arange(part.start, part.stop), config))
        done[part] = True


def _begun(partial: Path, about: dict[str, Any]) -> zarr.Group | None:
    """The group of an interrupted call, if it is of the same cells and expression."""
    if not (partial / "zarr.json").exists():
        return None
    group = zarr.open_group(partial, mode="r+")
    return group if dict(group.attrs) == about and "done" in group else None


def _empty(folder: Path, view: View, groups: Groups, about: dict[str, Any]) -> zarr.Group:
    group = zarr.open_group(folder, mode="a", zarr_format=3, attributes=about)
    for name, genes in (("regulator", list(groups.regulators)), ("target", list(view.panel.names))):
        group.create_array(name, data=np.array(genes, dtype=np.dtypes.StringDType()), dimension_names=[name])
    group.create_array("n", data=groups.sizes, dimension_names=["regulator"])
    shape = (len(groups.regulators), view.n_genes)
    chunks = (shape[0], min(TARGETS, shape[1]))
    for name in MEASURES:
        group.create_array(name, shape=shape, chunks=chunks, dtype="float64", dimension_names=["regulator", "target"])
    group.create_array("done", shape=shape[1:], chunks=chunks[1:], dtype="bool", dimension_names=["target"])
    return group


def _write(group: zarr.Group, part: slice, block: Block) -> None:
    for name in MEASURES:
        array: Any = group[name]
        array[:, part] = getattr(block, name)
