"""Which genes the guides of each cell perturb, and how strongly: the indicators among a model's inputs.

A model's inputs are the genes of the panel, in order, and after them the perturbed genes that were not measured, in
alphabetical order. A label of several genes ("A+B") perturbs each of them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from grndist.data.view import View
from grndist.genes import NON_TARGETING, GenePanel, may_be_gene, parts_of_label


@dataclass(frozen=True, eq=False)
class Perturbations:
    """The label of every cell, and the inputs that each label perturbs."""

    n_genes: int
    unmeasured: tuple[str, ...]  # perturbed genes outside the panel: inputs n_genes, n_genes + 1, ...
    label: Int64[np.ndarray, " cells"]  # of each cell, a row of the two tables
    members: Int64[np.ndarray, "labels guides"]  # inputs that the label perturbs; -1 fills up
    strength: Float[np.ndarray, "labels guides"]  # 1 silences the gene, 0 does nothing; 0 where members is -1
    is_control: np.ndarray  # [labels] bool; a label that names no gene and is not control has no members either

    @property
    def n_inputs(self) -> int:
        """Genes of the panel and unmeasured perturbed genes."""
        return self.n_genes + len(self.unmeasured)

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.members)

    @cached_property
    def single(self) -> Int64[np.ndarray, " labels"]:
        """The one input that a label perturbs; -1 for controls, several genes, or none."""
        count = (self.members >= 0).sum(axis=1)
        return np.where(count == 1, self.members.max(axis=1, initial=-1), -1)

    @cached_property
    def perturbed(self) -> Int64[np.ndarray, " perturbed"]:
        """Inputs that some label perturbs, ascending."""
        return np.unique(self.members[self.members >= 0])


def perturbations_of(view: View, use_unmeasured: bool = True) -> Perturbations:
    """What the labels of a view's cells perturb, at full strength.

    Args:
        view: its labels are genes, several genes joined by "+", controls, or something else.
        use_unmeasured: give perturbed genes outside the panel an indicator; else such parts of a label are ignored.
    """
    names = view.label_names
    used = set(np.unique(view.label_of_cell).tolist())
    parts = [_genes_of(name, view.panel) if row in used else set() for row, name in enumerate(names)]
    outside = (
        sorted({gene for genes in parts for gene in genes if gene not in view.panel.index}) if use_unmeasured else []
    )
    inputs = view.panel.index | {gene: view.n_genes + at for at, gene in enumerate(outside)}
    columns = [sorted(inputs[gene] for gene in genes if gene in inputs) for genes in parts]
    members = np.full((len(names), max([1, *map(len, columns)])), -1, dtype=np.int64)
    for row, found in enumerate(columns):
        members[row, : len(found)] = found
    return Perturbations(
        view.n_genes,
        tuple(outside),
        view.label_of_cell,
        members,
        (members >= 0).astype(np.float64),
        np.array([name == NON_TARGETING for name in names]),
    )


def _genes_of(label: str, panel: GenePanel) -> set[str]:
    """The genes a label names; a name of the panel is one gene whatever is in it. Controls beside genes are none."""
    parts = [label] if label in panel.index else parts_of_label(label)
    return {part for part in parts if part in panel.index or may_be_gene(part)}
