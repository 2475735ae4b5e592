"""From a source to a store: which cells, what their labels mean, and what state the values are in.

This is the only place that knows what other people call control cells; in the store they are
"non-targeting". Everything that was guessed or left out is a line of the report.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import sparse

from grndist.data.sources import Source, SourceError, SourceOptions, read_source, source_digest
from grndist.data.store import State, write_store
from grndist.files import refuse_existing
from grndist.genes import NON_TARGETING, GenePanel, some

LABEL_COLUMNS = ("perturbation", "gene", "guide_target", "condition")  # in this order
CONTROL_NAMES = ("nontargeting", "control", "ctrl", "nt", "negativecontrol", "negctrl", "ntc")  # as _bare writes them
SEPARATORS = re.compile(r"[+,|;]")
LARGEST_LOG = 20.0  # e^20 = 5e8, more than any cell's transcripts
LARGEST_COUNT = 2**32 - 1


class IngestConfig(SourceOptions):
    """What to take from a source, and what its labels are called."""

    perturbation_column: str | None = Field(None, description="column of the cells' labels; common names are found")
    control: str | None = Field(None, description="label of control cells; common names are found")
    where: str | None = Field(None, description="keep cells for which this holds, e.g. 'grna_max_frac > 0.9'")
    state: Literal["auto", "counts", "log1p", "continuous"] = Field("auto", description="what the values are")
    shuffle_seed: int = Field(0, ge=0, description="of the order of cells in the store")


@dataclass(frozen=True)
class Labels:
    """What was perturbed in each cell, in the store's words."""

    per_cell: pd.Series  # a gene, "non-targeting", or a label that is neither
    origin: Mapping[str, str]  # each label of the source -> its label in the store
    panel: GenePanel
    choice: str  # how column and control were chosen, for the report

    @cached_property
    def cells(self) -> dict[str, int]:
        """Number of cells of each label, most first."""
        return {str(label): int(count) for label, count in self.per_cell.value_counts().items()}

    @property
    def perturbed_genes(self) -> tuple[str, ...]:
        """Genes of the panel that are perturbed in some cell."""
        return tuple(label for label in self.cells if label in self.panel.index and label != NON_TARGETING)

    @property
    def unmapped(self) -> dict[str, int]:
        """Cells of each label that is neither control nor one gene of the panel."""
        known = {NON_TARGETING, *self.perturbed_genes}
        return {label: count for label, count in self.cells.items() if label not in known}

    @property
    def combined(self) -> dict[str, int]:
        """Those of `unmapped` that name several genes ("A+B")."""
        return {label: count for label, count in self.unmapped.items() if len(_parts(label)) > 1}


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
    labels = _labels(source, whole.obs, data.obs, panel, config)
    state, why = _state(source, data, config.state)
    matrix = data.matrix.astype(np.uint32 if state == "counts" else np.float32)
    obs = _labelled(data.obs, labels.per_cell)
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
            *_labels_described(labels, data.var),
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


def _labels(path: Path, whole: pd.DataFrame, kept: pd.DataFrame, panel: GenePanel, config: IngestConfig) -> Labels:
    """Labels of the cells kept; column and control are looked for in all, lest perturbed cells pass for controls."""
    column = config.perturbation_column or _found_column(whole, config.control)
    if column is None:
        return _observational(path, kept, panel, config)
    raw = _raw_labels(path, kept, column)
    controls = _controls(path, column, _present(whole[column]), config.control)
    present = _present(raw)
    if NON_TARGETING in present and NON_TARGETING not in controls:
        raise SourceError(
            f"{path}: control cells become {NON_TARGETING!r} in a store, but column {column!r} has that label beside "
            f"{some(controls)}; choose it with --control, or drop its cells with --where"
        )
    origin = {label: _meaning(label, controls, panel) for label in present}
    how = "as given" if config.perturbation_column else "found by its name and its control label"
    called = some(controls) if controls else "none: no label is known to mean control (--control LABEL names it)"
    return Labels(raw.map(origin), origin, panel, f"labels: column {column!r} ({how}); control cells: {called}")


def _present(labels: pd.Series) -> list[str]:
    """Every label once, most frequent first."""
    return list(labels.dropna().astype(str).str.strip().value_counts().index)


def _observational(path: Path, obs: pd.DataFrame, panel: GenePanel, config: IngestConfig) -> Labels:
    if config.control is not None:
        raise SourceError(
            f"{path}: no column {some(LABEL_COLUMNS, 9)} has the label {config.control!r}; say which column holds it "
            f"(--perturbation-column; there are {some(list(obs.columns), 20) or 'none'})"
        )
    choice = (
        f"labels: none found, so every cell counts as {NON_TARGETING!r} (observational data); if there are labels, "
        f"name them: --perturbation-column COLUMN --control LABEL (columns: {some(list(obs.columns), 20) or 'none'})"
    )
    return Labels(pd.Series(NON_TARGETING, index=obs.index), {}, panel, choice)


def _found_column(obs: pd.DataFrame, control: str | None) -> str | None:
    """The first column of a common name that holds a control label; exact spelling before others."""
    for name in LABEL_COLUMNS:
        for column in sorted((c for c in obs.columns if c.casefold() == name), key=lambda c: c != name):
            present = _present(obs[column])
            if _known_controls(present) if control is None else control in present:
                return str(column)
    return None


def _raw_labels(path: Path, obs: pd.DataFrame, column: str) -> pd.Series:
    if column not in obs.columns:
        raise SourceError(
            f"{path}: the table of cells has no column {column!r}; it has {some(list(obs.columns), 20) or 'none'}; "
            "choose one with --perturbation-column"
        )
    labels = obs[column].astype(object)
    labels = labels.where(labels.notna(), "").map(str).str.strip()
    missing = labels.index[labels == ""]
    if len(missing):
        raise SourceError(
            f"{path}: {len(missing)} cells have no label in column {column!r}, among them {some(list(missing))}; "
            f"label them, or drop them with --where '`{column}`.notna() and `{column}` != \"\"'"
        )
    return labels


def _controls(path: Path, column: str, present: list[str], control: str | None) -> tuple[str, ...]:
    if control is None:
        return _known_controls(present)
    if control not in present:
        raise SourceError(
            f"{path}: no cell has the control label {control!r} in column {column!r}; its labels are "
            f"{some(present, 10)}; choose one with --control"
        )
    return (control,)


def _known_controls(present: Iterable[str]) -> tuple[str, ...]:
    """The labels that mean control under the first common name that occurs, whatever its spelling."""
    labels = list(present)
    spelled = ((tuple(label for label in labels if _bare(label) == name)) for name in CONTROL_NAMES)
    return next(filter(None, spelled), ())


def _bare(label: str) -> str:
    return re.sub(r"[-_ .]", "", label).casefold()


def _parts(label: str) -> list[str]:
    return [part.strip() for part in SEPARATORS.split(label)]


def _meaning(label: str, controls: tuple[str, ...], panel: GenePanel) -> str:
    """The store's label: GEARS' "A+ctrl" and a gene under two guides, "A+A", are A; "A+B" stays "A+B"."""
    if label in controls:
        return NON_TARGETING
    parts = _parts(label)
    if label in panel.index or not all(parts):
        return label
    genes = {part for part in parts if part not in controls and _bare(part) not in CONTROL_NAMES}
    if len(parts) > 1 and len(genes) < 2:
        return genes.pop() if genes else NON_TARGETING
    return label


def _labelled(obs: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """`obs` with the store's labels; another column of that name is kept as `source_perturbation`."""
    if "perturbation" in obs and not (obs["perturbation"].astype(str) == labels).all():
        obs = obs.drop(columns="source_perturbation", errors="ignore")
        obs = obs.rename(columns={"perturbation": "source_perturbation"})
    return obs.assign(perturbation=pd.Categorical(labels))


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


def _labels_described(labels: Labels, var: pd.DataFrame) -> list[str]:
    lines = [labels.choice]
    if not labels.origin:
        return lines
    genes, cells = labels.perturbed_genes, labels.cells
    lines.append(f"cells: {cells.get(NON_TARGETING, 0):,} control, {_total(cells, genes):,} with one perturbed gene")
    lines.append(f"perturbed genes in the panel: {len(genes)}: {_with_cells(cells, genes) or 'none'}")
    renamed = [label for label, kept in labels.origin.items() if kept not in (label, NON_TARGETING)]
    if renamed:
        lines.append(f"labels of one gene and control are that gene: {len(renamed)}: {some(renamed)}")
    if labels.combined:
        lines.append(
            f"combined labels, kept as they are and counted for none of their genes: {len(labels.combined)}, "
            f"{_total(cells, labels.combined):,} cells: {_with_cells(cells, labels.combined)}"
        )
    outside = [label for label in labels.unmapped if label not in labels.combined]
    if outside:
        lines.append(
            f"labels that are no gene of the panel, used neither as control nor as perturbation: {len(outside)}, "
            f"{_total(cells, outside):,} cells: {_with_cells(cells, outside)}"
        )
    if outside and not genes:
        lines.append(
            f"no label is a gene of the panel, whose names are like {some(labels.panel.names)}: if the labels are "
            f"names of another kind, pass --gene-column (there is {some(list(var.columns), 20) or 'none'})"
        )
    return lines


def _total(cells: Mapping[str, int], labels: Iterable[str]) -> int:
    return sum(cells[label] for label in labels)


def _with_cells(cells: Mapping[str, int], labels: Iterable[str]) -> str:
    """Three of `labels` with their cells."""
    shown = [f"{label!r} ({cells[label]:,} cells)" for label in labels]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
