"""The cells that a run does not train on and that its edges are tested on."""

from grndist.config import Config
from grndist.data.selection import SelectionConfig, select
from grndist.data.store import open_store
from grndist.data.view import View
from grndist.errors import UserError
from grndist.runs import RunConfig
from grndist.sweeps.objectives.config import HeldOutConfig


class ObjectiveError(UserError):
    """An objective cannot be measured with this run."""


def refuse_leak(objective: HeldOutConfig, run: RunConfig) -> None:
    """Raise unless the run's settings keep the objective's cells out of training.

    Raises:
        ObjectiveError: they do not.
    """
    split, own = objective.split, run.causalbench
    if own is not None and (split, own.split) != ("test", "train"):
        raise ObjectiveError(
            f"objective {objective.name}: with causalbench, edges are tested on the cells of its test split and "
            f"trained on those of its train split, but split={split} and causalbench.split={own.split}; set the "
            "objective's split to test, and causalbench.split=train in the run"
        )
    if own is None and split in run.cells.split:
        raise ObjectiveError(
            f"objective {objective.name} tests edges on the cells of the {split} split, but the run trains on "
            f"cells.split={','.join(run.cells.split)}; set cells.split=[train] in the run"
        )


def held_out_selection(objective: HeldOutConfig, run: RunConfig) -> SelectionConfig:
    """The run's own selection, but of the cells that are held out: the same genes, scaled alike."""
    own = run.causalbench
    if own is not None:
        own = own.model_copy(update={"split": objective.split})
    cells = run.cells if own is not None else run.cells.model_copy(update={"split": (objective.split,)})
    return SelectionConfig(cells=cells, genes=run.genes, causalbench=own)


class HeldOut:
    """The held-out cells of runs, each selection made once."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}

    def cells(self, objective: HeldOutConfig, run: RunConfig) -> View:
        """The cells that an objective tests this run's edges on.

        Raises:
            UserError: the store cannot be read, there are no such cells, or the run has trained on them.
        """
        refuse_leak(objective, run)
        chosen = held_out_selection(objective, run)
        key = f"{run.store} {_json(chosen)}"
        if key not in self._views:
            self._views[key] = select(open_store(run.store), chosen)
        return self._views[key]


def _json(config: Config) -> str:
    return config.model_dump_json()
