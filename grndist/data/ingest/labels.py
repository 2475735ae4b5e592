"""What was perturbed in each cell: find the column of labels and the controls, and say it in the store's words.

This is the only place that knows what other people call control cells; in the store they are "non-targeting".
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from pydantic import Field

from grndist.config import Config
from grndist.data.ingest.columns import with_columns
from grndist.data.sources import SourceError
from grndist.genes import CONTROL_NAMES, NON_TARGETING, GenePanel, bare, may_be_gene, parts_of_label, some

LABEL_COLUMNS = ("perturbation", "gene", "guide_target", "condition")  # in this order


class LabelOptions(Config):
    """Where the labels are and what control cells are called."""

    perturbation_column: str | None = Field(None, description="column of the cells' labels; common names are found")
    control: str | None = Field(None, description="label of control cells; common names are found")


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
        return {label: count for label, count in self.unmapped.items() if len(parts_of_label(label)) > 1}


def read_labels(path: Path, whole: pd.DataFrame, kept: pd.DataFrame, panel: GenePanel, options: LabelOptions) -> Labels:
    """Labels of the cells kept; column and control are looked for in all, lest perturbed cells pass for controls.

    Args:
        path: the source, named in messages.
        whole: the table of all its cells.
        kept: the part of it that goes into the store.
        panel: the genes of the store.
        options: column and control, where they are not to be found by their names.

    Raises:
        SourceError: the column or the control label is not there, a cell has no label, or "non-targeting" is in use
            for cells that are no controls.
    """
    column = options.perturbation_column or _found_column(whole, options.control)
    if column is None:
        return _observational(path, kept, panel, options)
    raw = _raw_labels(path, kept, column)
    controls = _controls(path, column, _present(whole[column]), options.control)
    present = _present(raw)
    if NON_TARGETING in present and NON_TARGETING not in controls:
        raise SourceError(
            f"{path}: control cells become {NON_TARGETING!r} in a store, but column {column!r} has that label beside "
            f"{some(controls)}; choose it with --control, or drop its cells with --where"
        )
    origin = {label: meaning(label, controls, panel) for label in present}
    how = "as given" if options.perturbation_column else "found by its name and its control label"
    called = some(controls) if controls else "none: no label is known to mean control (--control LABEL names it)"
    return Labels(raw.map(origin), origin, panel, f"labels: column {column!r} ({how}); control cells: {called}")


def labelled(obs: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """`obs` with the store's labels; another column of that name is kept as `source_perturbation`."""
    return with_columns(obs, {"perturbation": pd.Categorical(labels)})


def labels_described(labels: Labels, var: pd.DataFrame) -> list[str]:
    """Lines of the report: how labels were chosen, and the cells of each kind; `var` is the table of genes."""
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
            "combined labels, kept as they are (every gene is perturbed to models that take several, such as CaTran-D; "
            f"others count none): {_counted(cells, labels.combined)}"
        )
    outside = [label for label in labels.unmapped if label not in labels.combined]
    if absent := [label for label in outside if may_be_gene(label)]:
        lines.append(
            "labels that are no gene of the panel (perturbed genes to models that take unmeasured ones, such as "
            f"CaTran-D; others use these cells neither as control nor as perturbation): {_counted(cells, absent)}"
        )
    if nothing := [label for label in outside if not may_be_gene(label)]:
        lines.append(
            f"labels that name no gene, used neither as control nor as perturbation: {_counted(cells, nothing)}"
        )
    if outside and not genes:
        lines.append(
            f"no label is a gene of the panel, whose names are like {some(labels.panel.names)}: if the labels are "
            f"names of another kind, pass --gene-column (there is {some(list(var.columns), 20) or 'none'})"
        )
    return lines


def _present(labels: pd.Series) -> list[str]:
    """Every label once, most frequent first."""
    return list(labels.dropna().astype(str).str.strip().value_counts().index)


def _observational(path: Path, obs: pd.DataFrame, panel: GenePanel, options: LabelOptions) -> Labels:
    if options.control is not None:
        raise SourceError(
            f"{path}: no column {some(LABEL_COLUMNS, 9)} has the label {options.control!r}; say which column holds it "
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
    spelled = ((tuple(label for label in labels if bare(label) == name)) for name in CONTROL_NAMES)
    return next(filter(None, spelled), ())


def meaning(label: str, controls: tuple[str, ...], panel: GenePanel) -> str:
    """The store's label: GEARS' "A+ctrl" and a gene under two guides, "A+A", are A; "A+B" stays "A+B"."""
    if label in controls:
        return NON_TARGETING
    parts = parts_of_label(label)
    if label in panel.index or not all(parts):
        return label
    genes = {part for part in parts if part not in controls and bare(part) not in CONTROL_NAMES}
    if len(parts) > 1 and len(genes) < 2:
        return genes.pop() if genes else NON_TARGETING
    return label


def _total(cells: Mapping[str, int], labels: Iterable[str]) -> int:
    return sum(cells[label] for label in labels)


def _counted(cells: Mapping[str, int], labels: Collection[str]) -> str:
    """Number of labels, of their cells, and three of them."""
    return f"{len(labels)}, {_total(cells, labels):,} cells: {_with_cells(cells, labels)}"


def _with_cells(cells: Mapping[str, int], labels: Iterable[str]) -> str:
    """Three of `labels` with their cells."""
    shown = [f"{label!r} ({cells[label]:,} cells)" for label in labels]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
