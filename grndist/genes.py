"""The gene panel: names and columns of the expression matrix, and which genes may regulate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64

NON_TARGETING = "non-targeting"  # the label of control cells, in every store
CONTROL = -1  # "perturbed gene" of a control cell
CONTROL_NAMES = ("nontargeting", "control", "ctrl", "nt", "negativecontrol", "negctrl", "ntc")  # as `bare` writes them
NO_GENE = frozenset({  # what else stands for a gene in labels, as `bare` writes it
    "na", "nan", "null", "none", "empty", "negative", "multiple", "multiplet", "multiplets", "doublet", "doublets",
    "mixed", "ambiguous", "excluded", "other", "unassigned", "notassigned", "unknown", "undetermined", "unmapped",
    "unlabelled", "unlabeled", "noguide", "nogrna", "nosgrna", "unperturbed", "untreated", "mock", "vehicle", "dmso",
    "wildtype", "safeharbor", "safeharbors", "safeharbour", "safeharbours", "safetargeting", "scramble", "scrambled",
    "intergenic",
})  # fmt: skip
LABEL_SEPARATORS = re.compile(r"[+,|;]")  # between the genes of a combined label
UNMAPPED = -2  # ... of a cell whose label is not one gene of the panel: neither control nor perturbation of a gene


@dataclass(frozen=True)
class GenePanel:
    """All genes of a store, in column order; `is_regulator` is None when every gene may regulate."""

    names: tuple[str, ...]
    is_regulator: Bool[np.ndarray, " genes"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each gene name."""
        return {name: column for column, name in enumerate(self.names)}

    def perturbed_columns(self, labels: Sequence[str]) -> Int64[np.ndarray, " labels"]:
        """Column of the gene each perturbation label names; CONTROL for controls, UNMAPPED for any other label.

        A combined label ("A+B") or a gene outside the panel is UNMAPPED: it is never counted as one of its parts.
        """
        special = {NON_TARGETING: CONTROL}
        return np.array([special.get(label, self.index.get(label, UNMAPPED)) for label in labels], dtype=np.int64)

    @property
    def regulators(self) -> list[str] | None:
        """Names of the genes that may regulate; None when every gene may."""
        if self.is_regulator is None:
            return None
        return [name for name, regulates in zip(self.names, self.is_regulator, strict=True) if regulates]


def parts_of_label(label: str) -> list[str]:
    """What a perturbation label names: one gene, or several of a combined label like "A+B"."""
    return [part.strip() for part in LABEL_SEPARATORS.split(label)]


def bare(name: str) -> str:
    """A name folded and without separators, as spellings differ: "Neg_Ctrl" is "negctrl", "N/A" is "na"."""
    return re.sub(r"[-_ ./]", "", name).casefold()


def may_be_gene(name: str) -> bool:
    """Whether part of a label that is no gene of the panel can be one that was not measured."""
    return bare(name) not in NO_GENE.union(CONTROL_NAMES, [""])


def some(names: Sequence[str], count: int = 3) -> str:
    """The first few of `names`, quoted, for messages."""
    return ", ".join(repr(str(name)) for name in list(names)[:count]) + (", ..." if len(names) > count else "")
