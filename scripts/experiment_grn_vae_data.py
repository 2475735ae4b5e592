"""The cells and reference networks of `experiment_grn_vae`: mDC, SCODE's sets, and simulated cells.

Simulated sets are one screen of 1,000 control cells, 200 genes and 40 regulators ("easy") whose counts are thinned:
every molecule is kept with the same chance, so they differ in nothing but depth, and with it the share of zeros.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.ingest import IngestConfig, ingest
from grndist.data.ingest.build import write_store
from grndist.data.simulate import SimulationConfig, simulate
from grndist.data.store import open_store
from grndist.data.view import View, whole
from grndist.evaluation.references import Reference, read_reference
from grndist.genes import NON_TARGETING
from grndist.seeds import stream

MDC = {"STRING": "STRING", "ChIP": "Specific", "non-specific": "Non-Specific"}
SCODE = {"STRING": "refNetwork_STRING.csv", "ChIP": "refNetwork_ChIP_TFs1000.csv", "DNaseI": "refNetwork_DNaseI.csv"}
FILES: dict[str, tuple[str, dict[str, str]]] = {  # folder, references; the first one is the one to judge by
    "mDC": ("beeline_mDC_TFs500", {name: f"{folder}/BL--network.csv" for name, folder in MDC.items()}),
    "hESC": ("scode_timecourse/hESC_DE_Chu2016", SCODE),
    "mESC": ("scode_timecourse/mESC_PrE_train", SCODE),
    "MEF": ("scode_timecourse/MEF_Treutlein2016", {"DNaseI": SCODE["DNaseI"]}),
}
THINNED = {"simulated_deep": 1.0, "simulated_medium": 0.4, "simulated_shallow": 0.13}  # share of molecules kept
HELD_OUT = 0.2  # of the cells


def prepared(name: str, work: Path, data_dir: Path) -> tuple[View, dict[str, Reference]]:
    """The cells of a data set, made into a store the first time, and its reference networks."""
    store = work / "stores" / f"{name}.zarr"
    store.parent.mkdir(parents=True, exist_ok=True)
    if name in THINNED:
        references = {"truth": store.with_suffix(".network.csv")}
        if not store.exists():
            thinned(THINNED[name], store, references["truth"])
    else:
        folder, files = FILES[name]
        references = {reference: data_dir / folder / file for reference, file in files.items()}
        if not store.exists():
            config = IngestConfig(orientation="genes_in_rows")
            ingest(data_dir / folder / "ExpressionData.csv", store, config)
    return whole(open_store(str(store))), {name: read_reference(file) for name, file in references.items()}


def thinned(share: float, store: Path, network: Path) -> None:
    """Write the simulated cells, every molecule kept with chance `share`, and their network."""
    made = simulate(
        SimulationConfig(cells=1000, genes=200, regulators=40, perturbed_share=0, difficulty="easy", seed=0)
    )
    made.network.to_csv(network, index=False)
    counts = sparse.csr_matrix(made.counts)
    counts.data = stream(0, "thinning").binomial(counts.data, share)
    counts.eliminate_zeros()
    obs = pd.DataFrame({"perturbation": NON_TARGETING}, index=[f"cell{at}" for at in range(counts.shape[0])])
    panel = pd.DataFrame(index=list(made.genes))
    write_store(store, counts, obs, panel, "counts", {"name": store.stem})


def split(view: View) -> tuple[View, View]:
    """Cells to learn from and cells held out, the same for every seed."""
    order = stream(0, "held-out").permutation(view.n_cells)
    cut = round(HELD_OUT * view.n_cells)
    rest, learn = (replace(view, rows=view.rows[np.sort(part)]) for part in (order[:cut], order[cut:]))
    return learn, rest
