"""From a checkpoint to its network, ranked or whole, to its gene embeddings and its latent space of cells.

The adjacency is computed in blocks of rows and never held: memory is a few blocks and the edges that are kept.
"""

from grndist.inference.edges import edges_of_checkpoint, edges_of_run, listed_edges, strongest_edges
from grndist.inference.embeddings import Embeddings, embeddings_of_run, nearest, refuse_ending, write_embeddings
from grndist.inference.network import (
    GeneLists,
    InferenceError,
    OpenedRun,
    checkpoint_of_run,
    network_of,
    opened_run,
    refuse_no_run,
)
from grndist.inference.scores import described_scores, refuse_scores

__all__ = [
    "Embeddings",
    "GeneLists",
    "InferenceError",
    "OpenedRun",
    "checkpoint_of_run",
    "described_scores",
    "edges_of_checkpoint",
    "edges_of_run",
    "embeddings_of_run",
    "listed_edges",
    "nearest",
    "network_of",
    "opened_run",
    "refuse_ending",
    "refuse_no_run",
    "refuse_scores",
    "strongest_edges",
    "write_embeddings",
]
