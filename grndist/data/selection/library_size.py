"""The library size that cells are scaled to."""

import numpy as np
from jaxtyping import Float


def median_total(totals: Float[np.ndarray, " cells"]) -> float:
    """The median over the cells in which something was seen, as scanpy's `normalize_total` has it; 0 without any.

    Cells without counts are left out: half of them would make it 0, and every scaled value with it. (scanpy 1.11.5
    counts them where the matrix is CSR, and not where it is dense.)
    """
    seen = totals[totals > 0]
    return float(np.median(seen)) if len(seen) else 0.0
