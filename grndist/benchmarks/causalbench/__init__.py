"""CausalBench's regimes from one command: models x fractions of the interventions x seeds, scored on held-out cells.

After Chevalley et al. 2022 (arXiv:2210.17283) and the CausalBench challenge: every model is trained on the train split
with a growing share of the perturbations, and its edges are tested on the test split.

`source` finds the data, `contenders` the models, `case` does one training, `ledger` keeps what is done, `results` makes
tables of it, `drive` is the whole.
"""

from grndist.benchmarks.causalbench.config import CasesError, RegimesConfig
from grndist.benchmarks.causalbench.contenders import Contender, contenders
from grndist.benchmarks.causalbench.drive import run_causalbench
from grndist.benchmarks.causalbench.source import store_of, summary_of

__all__ = [
    "CasesError",
    "Contender",
    "RegimesConfig",
    "contenders",
    "run_causalbench",
    "store_of",
    "summary_of",
]
