"""What of a network is logged as MLflow's model: its checkpoint, and its strongest edges, which the model predicts.

The edges are made here, since `tracking` knows nothing of models. Of a large panel they are made when the network is
registered, not at the end of every run.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from grndist import __version__, models
from grndist.errors import UserError
from grndist.inference import edges_of_checkpoint
from grndist.networks.edges import EdgeList
from grndist.networks.io import write_edges
from grndist.storage import absolute
from grndist.tracking.model_files import ABOUT, CONFIG, EDGES
from grndist.training import checkpoint

HELD = 1_000_000  # edges at most that a logged network has
PAIRS = 4096**2  # of regulators and targets at most whose edges are made at the end of a run, in seconds

logger = logging.getLogger(__name__)


def files_at_the_end(run: str, settings: Path, final: Path, aside: Path) -> dict[str, Path]:
    """The files of a trained network to log, edges only if the panel is not too large.

    Args:
        run: the run directory, a path or URL.
        settings: its config.yaml.
        final: the checkpoint.
        aside: a folder for what is made; it must stay until tracking is over.
    """
    about = checkpoint.describe(final)
    pairs = len(about.genes) * (len(about.genes) + len(about.unmeasured or []))
    if pairs > PAIRS:
        logger.info("MLflow's model of this run is without its edges, since its panel is large; registering adds them")
        return files_of(run, settings, final, aside, None)
    try:
        return files_of(run, settings, final, aside, strongest(run, final))
    except UserError as error:  # weights that are not finite, say: the run has ended, and infer will say it again
        logger.warning("MLflow's model of this run is without its edges: %s", error)
        return files_of(run, settings, final, aside, None)


def strongest(run: str | Path, folder: Path, at_most: int = HELD) -> tuple[EdgeList, bool]:
    """The strongest edges of a checkpoint, and whether they are all."""
    edges = edges_of_checkpoint(folder, at_most=at_most + 1)
    kept = replace(edges, table=edges.table.head(at_most), origin={**edges.origin, "run": absolute(run)})
    return kept, len(edges) <= at_most


def files_of(
    run: str | Path, settings: Path, folder: Path, aside: Path, edges: tuple[EdgeList, bool] | None
) -> dict[str, Path]:
    """The files of a network to log, by their name inside the model."""
    files = {name: folder / name for name in checkpoint.NETWORK_FILES} | {CONFIG: settings, ABOUT: aside / ABOUT}
    about = described(run, checkpoint.describe(folder))
    if edges is not None:
        files[EDGES] = aside / EDGES
        write_edges(edges[0], files[EDGES])
        about |= {"edges": len(edges[0]), "complete": edges[1]}
    files[ABOUT].write_text(json.dumps(about, indent=1), encoding="utf-8")
    return files


def described(run: str | Path, about: checkpoint.Description) -> dict[str, Any]:
    """What network.json says of a checkpoint."""
    settings: Mapping[str, Any] = about.config["model"]
    config = TypeAdapter(models.ModelConfig).validate_python(settings)
    return {
        "run": absolute(run),
        "model": settings["kind"],
        "step": about.step,
        "store_digest": about.store_digest,
        "grndist_version": __version__,
        "directed": not models.is_undirected(config),
        "complete": False,
        "genes": about.genes,
    }
