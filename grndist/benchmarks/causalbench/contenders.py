"""Who is compared: presets and run files, which are trained, and baselines, which are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grndist.benchmarks.causalbench.config import CasesError, RegimesConfig
from grndist.config import Tree, merge, read_tree
from grndist.data.selection.cell_filters import CellsConfig
from grndist.data.selection.gene_filters import GenesConfig
from grndist.evaluation.baselines import METHODS
from grndist.runs import RunConfig, presets
from grndist.runs.config import run_of

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Contender:
    """One model."""

    name: str
    file: Path  # that messages name
    tree: Tree | None = field(default=None)  # of its run file with the user's changes; None: a baseline

    def run(self, config: RegimesConfig, fraction: float, seed: int, runs: Path, parent: str = "") -> RunConfig:
        """The training of one case, in a run directory below `runs`.

        Raises:
            ConfigError: its settings are not valid.
        """
        assert self.tree is not None
        tracking = config.tracking
        tags = {"benchmark": "causalbench", "model": self.name, "fraction": f"{fraction:g}", "seed": str(seed)}
        own: Tree = {
            "name": case_name(self.name, fraction, seed),
            "runs": str(runs),
            "store": config.store,
            "causalbench": config.regime(fraction, seed).model_dump(mode="json"),
            "training": {"seed": seed},
            "tracking": tracking.model_dump(mode="json") | {"parent": parent, "tags": tracking.tags | tags},
        }
        return run_of(merge(self.tree, own), self.file)

    def settings(self, config: RegimesConfig) -> Tree:
        """What a case that is done must have been of, to stay: settings without seeds, names, places and workers."""
        if self.tree is None:
            return {"baseline": self.name}
        run = self.run(config, 1.0, 0, Path("runs"))
        left_out = {"name", "runs", "store", "tracking", "workers", "preset", "causalbench"}
        return run.model_dump(mode="json", exclude=left_out)


def case_name(model: str, fraction: float, seed: int) -> str:
    """What a case is called, in run directories, files and MLflow."""
    return f"{model}-{fraction:g}-seed-{seed}"


def contenders(names: Sequence[str], changes: Mapping[str, Tree]) -> list[Contender]:
    """The models of these names: presets, baselines or run files, which are called by their file's stem.

    Args:
        names: each of them once.
        changes: to the settings of those that are trained; under "" of all of them, else of one.

    Raises:
        CasesError: there is no such model, or it stands there twice; or changes are of none of them.
        ConfigError: a run file cannot be read.
    """
    found = [_contender(name, changes.get("", {})) for name in names]
    called = [one.name for one in found]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise CasesError(f"--model {twice} is there {called.count(twice)} times; name every model once")
    known = {one.name for one in found if one.tree is not None}
    if strange := sorted(set(changes) - known - {""}):
        raise CasesError(
            f"{strange[0]}.KEY=VALUE changes no model: it is a baseline, which has no settings; those with "
            f"settings are {', '.join(sorted(known)) or 'none'}"
        )
    return [_changed(one, changes.get(one.name, {})) for one in found]


def _contender(name: str, changes: Tree) -> Contender:
    if name in METHODS:
        return Contender(name, Path(f"--model {name}"))
    if name.endswith(ENDINGS):
        tree = merge(read_tree(Path(name)), changes)
        return Contender(Path(name).stem, Path(name), tree)
    if name not in presets():
        raise CasesError(
            f"--model {name}: there is no preset or baseline of that name, and it is no run file (.yaml); presets: "
            f"{', '.join(presets())}; baselines: {', '.join(METHODS)}"
        )
    return Contender(name, Path(f"--model {name}"), merge({"preset": name}, changes))


def _changed(one: Contender, changes: Tree) -> Contender:
    return one if one.tree is None else Contender(one.name, one.file, merge(one.tree, changes))


def refuse_own_choice(one: Contender, config: RegimesConfig) -> None:
    """Raise unless a model's settings are valid and leave the choice of cells and genes to CausalBench.

    Raises:
        CasesError: they choose cells or genes.
        ConfigError: they are not valid.
    """
    if one.tree is None:
        return
    if "causalbench" in one.tree:
        raise CasesError(
            f"{one.file}: causalbench is the command's own to set; leave it out of the run file, and change the filter "
            "of all models with causalbench.KEY=VALUE after the command"
        )
    run = one.run(config, config.fractions[-1], config.seeds[0], Path("runs"))
    chosen = [name for name, part in (("cells", CellsConfig()), ("genes", GenesConfig())) if getattr(run, name) != part]
    if chosen:
        raise CasesError(
            f"{one.file}: CausalBench chooses cells and genes, the same for all models; leave {', '.join(chosen)} out"
        )
