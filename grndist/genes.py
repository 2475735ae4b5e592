"""The gene panel: names and columns of the expression matrix, and which genes may regulate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64

from grndist.errors import UserError

NON_TARGETING = "non-targeting"  # the label of control cells, in every store
CONTROL = -1  # "perturbed gene" of a control cell
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

    def columns(self, names: Iterable[str]) -> Int64[np.ndarray, " genes"]:
        """Columns of `names`, in their order.

        Raises:
            UserError: some of them are not in the panel (three are named).
        """
        names = list(names)
        missing = [name for name in names if name not in self.index]
        if missing:
            raise UserError(f"{len(missing)} genes are not in the panel, among them {some(missing)}")
        return np.array([self.index[name] for name in names], dtype=np.int64)

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

    def with_regulators(self, names: Iterable[str]) -> "GenePanel":
        """The same panel in which only `names` may regulate."""
        mask = np.zeros(len(self), dtype=bool)
        mask[self.columns(names)] = True
        return GenePanel(self.names, mask)


def some(names: Sequence[str], count: int = 3) -> str:
    """The first few of `names`, quoted, for messages."""
    return ", ".join(repr(str(name)) for name in list(names)[:count]) + (", ..." if len(names) > count else "")
