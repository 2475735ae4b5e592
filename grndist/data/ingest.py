"""From a source to a store: which cells, what their labels mean, and what state the values are in.

Everything that was guessed or left out is a line of the report.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import sparse

from grndist.data.build import write_store
from grndist.data.labels import LabelOptions, labelled, labels_described, read_labels
from grndist.data.sources import Source, SourceError, SourceOptions, read_source, source_digest
from grndist.data.store import State
from grndist.files import refuse_existing
from grndist.genes import NON_TARGETING, GenePanel, some

LARGEST_LOG = 20.0  # e^20 = 5e8, more than any cell's transcripts
LARGEST_COUNT = 2**32 - 1


class IngestConfig(SourceOptions, LabelOptions):
    """What to take from a source, and what its labels are called."""

    where: str | None = Field(None, description="keep cells for which this holds, e.g. 'grna_max_frac > 0.9'")
    state: Literal["auto", "counts", "log1p", "continuous"] = Field("auto", description="what the values are")
    shuffle_seed: int = Field(0, ge=0, description="of the order of cells in the store")


@dataclass(frozen=True)
class IngestReport:
    """What was found and done; `lines` say it in words."""

    n_cells: int
    n_genes: int
    state: State
    n_controls: int
    perturbed_genes: tuple[str, ...]
    unmapped: dict[str, int]  # label -> cells
    combined: dict[str, int]  # those of `unmapped` that name several genes
    lines: tuple[str, ...]


def ingest(source: Path, store: Path, config: IngestConfig, overwrite: bool = False) -> IngestReport:
    """Read `source`, decide what its values and labels are, and write `store`.

    Raises:
        UserError: the source, an option or the store's place is wrong; nothing is written then.
    """
    _refuse_own_source(source, store)
    refuse_existing(store, overwrite)
    whole = read_source(source, config)
    data = whole if config.where is None else _selected(source, whole, config.where)
    panel = GenePanel(tuple(data.var.index))
    labels = read_labels(source, whole.obs, data.obs, panel, config)
    state, why = _state(source, data, config.state)
    matrix = data.matrix.astype(np.uint32 if state == "counts" else np.float32)
    obs = labelled(data.obs, labels.per_cell)
    write_store(store, matrix, obs, data.var, state, _record(source, data, config), config.shuffle_seed, overwrite)
    return IngestReport(
        n_cells=matrix.shape[0],
        n_genes=matrix.shape[1],
        state=state,
        n_controls=labels.cells.get(NON_TARGETING, 0),
        perturbed_genes=labels.perturbed_genes,
        unmapped=labels.unmapped,
        combined=labels.combined,
        lines=(
            *_described(source, whole, data, config),
            f"state: {state}, because {why}",
            *labels_described(labels, data.var),
        ),
    )


def _refuse_own_source(source: Path, store: Path) -> None:
    if store.resolve() in (source.resolve(), *source.resolve().parents):
        raise SourceError(f"{source} would be replaced by the store {store}; give the store a path of its own")


def _selected(path: Path, source: Source, where: str) -> Source:
    """The cells for which the expression `where` over the columns of obs holds."""
    keep = _evaluated(path, source.obs, where)
    if not keep.any():
        raise SourceError(f"{path}: --where {where!r} holds for none of its {len(keep)} cells; loosen it")
    matrix = sparse.csr_matrix(source.matrix[np.flatnonzero(keep)])
    if not matrix.nnz:
        raise SourceError(
            f"{path}: the {matrix.shape[0]} cells that --where {where!r} keeps hold only zeros; loosen it"
        )
    return replace(source, matrix=matrix, obs=source.obs[keep])


def _evaluated(path: Path, obs: pd.DataFrame, where: str) -> np.ndarray:
    columns = f"its columns are {some(list(obs.columns), 20) or 'none'}"
    try:
        result = obs.eval(where, engine="python", local_dict={}, global_dict={})
    except NameError as error:  # pandas' UndefinedVariableError
        raise SourceError(f"{path}: --where {where!r}: {error}; {columns} (write text in quotes)") from None
    except (
        SyntaxError,
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        ArithmeticError,
        NotImplementedError,
    ) as error:
        raise SourceError(
            f"{path}: --where {where!r} cannot be evaluated ({error}); {columns}; an example: 'n_genes > 200'"
        ) from None
    known = result.dropna().infer_objects() if isinstance(result, pd.Series) else None
    if known is None or not pd.api.types.is_bool_dtype(known) or len(result) != len(obs):
        raise SourceError(
            f"{path}: --where {where!r} is not true or false for each cell; compare, e.g. 'n_genes > 200'"
        )
    return result.isin([True]).to_numpy()  # missing is not true


def _state(path: Path, source: Source, asked: str) -> tuple[State, str]:
    """What the values are, and why."""
    values = source.matrix.data
    broken = np.flatnonzero(values != np.rint(values)) if values.dtype.kind == "f" else np.array([], dtype=int)
    if asked == "counts" and len(broken):
        raise SourceError(
            f"{path}: --state counts, but {source.place(broken[0])} is {values[broken[0]]} ({len(broken)} values are "
            "not whole); leave --state out, or choose the counts with --layer or --raw"
        )
    if asked in ("log1p", "continuous"):
        return asked, "--state says so"  # type: ignore[return-value]
    if not len(broken):
        _check_largest(path, source)
        return "counts", "every value is a whole number"
    if source.logged:
        return "log1p", 'the file says so (uns["log1p"])'
    if _equal_totals(source):
        return "log1p", "the cells' sums of exp(value) - 1 are equal within 1 %"
    if values.max() <= LARGEST_LOG:
        return "log1p", f"values are not whole and at most {values.max():.4g} (otherwise pass --state continuous)"
    return "continuous", f"values are not whole and reach {values.max():.4g} (otherwise pass --state log1p)"


def _check_largest(path: Path, source: Source) -> None:
    largest = int(source.matrix.data.argmax())
    if source.matrix.data[largest] > LARGEST_COUNT:
        raise SourceError(
            f"{path}: {source.place(largest)} is {source.matrix.data[largest]}, more than a count can be "
            f"({LARGEST_COUNT}); if these are no counts, pass --state continuous"
        )


def _equal_totals(source: Source) -> bool:
    if source.matrix.data.max() > LARGEST_LOG:
        return False
    totals = source.matrix.astype(np.float64).expm1().sum(axis=1)
    return bool(totals.max() - totals.min() <= 0.01 * np.median(np.asarray(totals)))


def _record(path: Path, source: Source, config: IngestConfig) -> dict[str, str]:
    """Where the store comes from; file names only, so that it means the same on every machine."""
    options = config.model_dump(mode="json", exclude_defaults=True)
    record = {"file": path.resolve().name, "kind": source.description, "sha256": source_digest(path)}
    if config.cells_table is not None:
        options["cells_table"] = config.cells_table.name
        record["cells_table_sha256"] = source_digest(config.cells_table)
    return record | {"options": json.dumps(options, sort_keys=True)}


def _described(path: Path, whole: Source, kept: Source, config: IngestConfig) -> list[str]:
    cells, genes = kept.matrix.shape
    zeros = 100 * (1 - kept.matrix.nnz / (cells * genes))
    lines = [
        f"source: {path.name} ({kept.description})",
        f"matrix: {cells:,} cells x {genes:,} genes, {zeros:.1f} % zeros",
    ]
    if config.where is not None:
        lines.append(f"cells: {len(whole.obs) - cells:,} of {len(whole.obs):,} dropped by --where {config.where!r}")
    silent = int((np.diff(kept.matrix.indptr) == 0).sum())
    if silent:
        lines.append(f"cells: {silent:,} in which nothing was seen are kept")
    unseen = np.setdiff1d(np.arange(genes), kept.matrix.indices)
    if len(unseen):
        lines.append(f"genes: {len(unseen):,} never seen in these cells are kept: {some(list(kept.var.index[unseen]))}")
    return lines
