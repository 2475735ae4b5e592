"""The gene embeddings of a trained model: as a table, as an AnnData, and which genes are near each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from grndist.files import written_aside
from grndist.genes import some
from grndist.inference.network import InferenceError, checkpoint_of_run, load_model
from grndist.networks.io import ENDINGS, SEPARATORS, EdgeFileError, table_ending, write_text
from grndist.training import checkpoint

H5AD = ".h5ad"


@dataclass(frozen=True)
class Embeddings:
    """One embedding or several of the same genes, by what they are: "embedding", or "regulator" and "target"."""

    run: str
    genes: tuple[str, ...]  # the panel, in column order
    by_role: Mapping[str, Float[np.ndarray, "genes d"]]

    def table(self) -> pd.DataFrame:
        """The column gene, then one a dimension: embedding_0, embedding_1, ..."""
        columns = {
            f"{role}_{number}": values[:, number]
            for role, values in self.by_role.items()
            for number in range(values.shape[1])
        }
        return pd.DataFrame({"gene": list(self.genes)} | columns)

    def adata(self) -> anndata.AnnData:
        """An AnnData without cells: the genes as var, each embedding in varm under its name."""
        return anndata.AnnData(
            obs=pd.DataFrame(index=pd.Index([], dtype=object)),
            var=pd.DataFrame(index=pd.Index(self.genes, dtype=object)),
            varm=dict(self.by_role),
        )


def embeddings_of_run(where: str | Path) -> Embeddings:
    """The embeddings of the newest checkpoint of a run directory, at a path or URL.

    Raises:
        InferenceError: the model has none.
        UserError: not a run directory, or no checkpoint yet.
    """
    with checkpoint_of_run(where) as folder:
        about = checkpoint.describe(folder)
        found = load_model(folder, about).embeddings()
    if not found:
        raise InferenceError(
            f"{where}: this model ({about.config['model']['kind']}) has no gene embeddings; train one that has: "
            "model.kind=catran, or model.kind=catran_d with model.form=bilinear or attention"
        )
    by_role = {role: values.numpy(force=True) for role, values in found.items()}
    return Embeddings(str(where), tuple(about.genes), by_role)


def refuse_ending(where: str) -> None:
    """Raise unless `write_embeddings` knows the ending; call it before long work.

    Raises:
        InferenceError: it does not.
    """
    if where.endswith(H5AD):
        return
    try:
        table_ending(Path(where))
    except EdgeFileError:
        raise InferenceError(
            f"{where}: embeddings are written as a table ({ENDINGS}) or an AnnData ({H5AD}); use one of these endings"
        ) from None


def write_embeddings(embeddings: Embeddings, path: Path, overwrite: bool = False) -> None:
    """Write the embeddings by the ending of `path`: .h5ad, .parquet, or .tsv and .csv, plain or .gz.

    Raises:
        InferenceError: another ending.
        UserError: `path` exists and `overwrite` is false, or its folder does not.
    """
    refuse_ending(path.name)
    with written_aside(path, overwrite) as aside:
        if path.suffix == H5AD:
            embeddings.adata().write_h5ad(aside)
        elif (ending := table_ending(path)) in SEPARATORS:
            write_text(embeddings.table(), aside, SEPARATORS[ending])
        else:
            embeddings.table().to_parquet(aside, compression="zstd", index=False)


def nearest(embeddings: Embeddings, gene: str, n: int, role: str | None = None) -> pd.DataFrame:
    """The `n` other genes whose embedding has the largest cosine with that of `gene`: columns gene and cosine.

    Ties are in panel order; the cosine with a vector of zeros is 0.

    Args:
        embeddings: of a run.
        gene: a name in the panel.
        n: how many; all others if there are fewer.
        role: which embedding, "regulator" or "target"; None: the first.

    Raises:
        InferenceError: there is no such gene or role.
    """
    position, values = _position(embeddings, gene), _of_role(embeddings, role).astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(length > 0, length, 1)
    cosine = unit @ unit[position]
    order = np.argsort(-cosine, kind="stable")
    order = order[order != position][:n]
    return pd.DataFrame({"gene": np.array(embeddings.genes, dtype=object)[order], "cosine": cosine[order]})


def _of_role(embeddings: Embeddings, role: str | None) -> Float[np.ndarray, "genes d"]:
    if role is None:
        return next(iter(embeddings.by_role.values()))
    if role not in embeddings.by_role:
        raise InferenceError(
            f"{embeddings.run} has no embedding of genes as {role!r}; it has {', '.join(embeddings.by_role)}: "
            "choose one of them, or leave out --as"
        )
    return embeddings.by_role[role]


def _position(embeddings: Embeddings, gene: str) -> int:
    if gene in embeddings.genes:
        return embeddings.genes.index(gene)
    by_upper = {name.upper(): name for name in embeddings.genes}
    close = [by_upper[name] for name in get_close_matches(gene.upper(), by_upper, n=3)]
    remedy = f"did you mean {some(close)}?" if close else f"they are like {some(embeddings.genes)}"
    raise InferenceError(f"{embeddings.run}: {gene!r} is not one of its {len(embeddings.genes):,} genes; {remedy}")
