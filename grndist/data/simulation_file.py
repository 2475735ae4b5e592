"""A simulation as two files: the counts as h5ad and the network beside it as TSV, both whole or not there."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from grndist.data.simulate import CONDITIONS, Simulation, numbered
from grndist.errors import UserError
from grndist.files import refuse_existing, written_aside


def network_path(path: Path) -> Path:
    """Where the network of the data set at `path` lies: data.h5ad -> data.network.tsv."""
    return path.with_name(f"{path.stem}.network.tsv")


def check_output(path: Path, overwrite: bool = False) -> None:
    """Refuse, before any work, a path that `write_simulation` could not write.

    Raises:
        UserError: not an .h5ad name, its folder is missing, or one of the two files exists and may not be replaced.
    """
    if path.suffix != ".h5ad":
        raise UserError(f"{path}: the simulation is written as h5ad; give a file name that ends in .h5ad")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; create it first or choose another place")
    for file in (path, network_path(path)):
        refuse_existing(file, overwrite)


def write_simulation(simulation: Simulation, path: Path, overwrite: bool = False) -> Path:
    """Write the data set to `path` and the network beside it; neither appears before both are whole.

    The content is a pure function of the simulation: no time stamps, no machine names.

    Returns:
        The network's path.

    Raises:
        UserError: as `check_output`, or the disk takes no more.
    """
    check_output(path, overwrite)
    edges = network_path(path)
    table = simulation.network.to_csv(sep="\t", index=False, lineterminator="\n")
    data = _h5ad_bytes(simulation)
    with written_aside(edges, overwrite) as edges_aside, written_aside(path, overwrite) as data_aside:
        edges_aside.write_text(table, encoding="utf-8", newline="")
        data_aside.write_bytes(data)
    return edges


def _h5ad_bytes(simulation: Simulation) -> bytes:
    """Return the file's content, built in memory because HDF5 cannot close a file on a full disk."""
    import h5py
    from anndata import AnnData
    from anndata.io import write_elem

    config = simulation.config
    settings = {**config.model_dump(), "conditions": asdict(CONDITIONS[config.difficulty])}
    data = AnnData(simulation.counts, obs=_obs(simulation), var=_var(simulation), uns={"simulation": settings})
    with h5py.File("simulation", "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", data, dataset_kwargs={"compression": "gzip"})
        file.flush()
        return file.id.get_file_image()


def _obs(simulation: Simulation) -> pd.DataFrame:
    columns = {
        "perturbation": pd.Categorical(list(simulation.perturbation)),
        "capture": simulation.capture,
        "residual_fraction": simulation.residual,
    }
    return pd.DataFrame(columns, index=list(numbered("cell", simulation.config.cells)))


def _var(simulation: Simulation) -> pd.DataFrame:
    columns = {"is_regulator": simulation.is_regulator, "basal_mean": simulation.basal}
    return pd.DataFrame(columns, index=list(simulation.genes))
