"""CaTran: gene embeddings attend to each other; the attention matrix is the network.

After "CaTran: ultra-light neural network for predicting gene-gene interactions from single-cell data" (Bakulin).
Expression is joined to the embeddings, part of it is corrupted, and the model restores it; an interventional loss
draws the attention to perturbed genes. `plain` computes it layer by layer and is the definition; `fast` gives the same
numbers by algebra.
"""

from grndist.models.catran.config import CaTranConfig
from grndist.models.catran.model import CaTran

__all__ = ["CaTran", "CaTranConfig"]
