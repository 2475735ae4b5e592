"""The settings of a sweep, and the sweep file they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from grndist.config import Config, ConfigError, Tree, branch, merge, read_tree, validate
from grndist.runs import RunConfig
from grndist.runs.config import run_of
from grndist.storage import absolute
from grndist.sweeps.objectives import ObjectiveConfig
from grndist.sweeps.space import Parameter, Settings, at_random, by_ends, grid_size
from grndist.tracking import TrackingConfig

OWN = ("name", "runs", "store", "training.seed", "training.threads", "tracking", "workers")  # no trial sets these
TRIED = 16  # random trials whose settings are checked before the first begins


class SchedulerConfig(Config):
    """Which trials are stopped early, or go on with other settings, by what they are worth on the way."""

    kind: Literal["none", "asha", "median", "pbt"] = Field(
        "none", description="asha: successive halving; median: those below the median; pbt: population based training"
    )
    looks: int = Field(4, ge=2, description="a trial is measured so often, after equal parts of its training")
    grace: int = Field(1, ge=1, description="looks before which no trial is stopped (asha, median)")
    reduction: float = Field(2.0, gt=1, description="one of so many trials goes on at each rung (asha)")
    mutate: list[str] = Field(
        [], description="settings of the space that may change in mid-training, which shapes may not (pbt)"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> "SchedulerConfig":
        if self.grace > self.looks:
            raise ValueError(f"grace={self.grace} is more than looks={self.looks}, so that nothing is ever stopped")
        if (self.kind == "pbt") != bool(self.mutate):
            raise ValueError("kind=pbt needs mutate, the settings that may change in mid-training, and no other has it")
        return self


class BudgetConfig(Config):
    """When the sweep has tried enough: whichever comes first."""

    trials: int | None = Field(None, gt=0, description="how many; null with search=grid: all of the grid")
    hours: float | None = Field(None, gt=0, description="of this sweep's own time, over all resumptions")


class TrialConfig(Config):
    """What one trial takes, and how often it may be lost."""

    cpus: float = Field(1.0, gt=0, description="reserved for each, and its number of CPU threads")
    gpus: float = Field(0.0, ge=0, description="0.25: four trials share a GPU; with training.device=cuda")
    concurrent: int | None = Field(
        None, gt=0, description="at the same time; null: as many as the cluster has room for"
    )
    max_failures: int = Field(2, ge=0, description="how often its process may be lost before the trial has failed")
    together: int | None = Field(
        None,
        gt=0,
        description="trainings of one process that are stacked, where models can be and no scheduler wants looks at "
        "them; null: 8 where a gain of more than 1.3 was measured, else 1",
    )


class SweepConfig(Config):
    """One sweep, completely."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the sweep's folder below `sweeps`")
    sweeps: str = Field("sweeps", min_length=1, description="the folder where sweeps are, seen by all nodes")
    run: str | dict[str, Any] = Field(
        description="the run that trials differ from: a run file, or what would be in one"
    )
    space: dict[str, Parameter] = Field(min_length=1)
    search: Literal["random", "grid", "tpe"] = Field(
        "random", description="tpe: Optuna's tree-structured Parzen estimator, which learns from finished trials"
    )
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    replicates: int = Field(1, gt=0, description="trainings of each trial, with one seed after the other")
    objectives: list[ObjectiveConfig] = Field(
        min_length=1, description="the first decides; with several, a Pareto table"
    )
    confirm: int = Field(3, ge=0, description="fresh seeds on which the best setting and the run's own are compared")
    trial: TrialConfig = TrialConfig()
    seed: int = Field(0, ge=0, description="of the search; replicates have the run's seed and those after it")
    address: str = Field(
        "", description="of the Ray cluster; empty: that of RAY_ADDRESS, of this machine, or a new one"
    )

    @field_validator("space")
    @classmethod
    def _leaves_the_sweeps_own(cls, space: dict[str, Parameter]) -> dict[str, Parameter]:
        for key, parameter in space.items():
            if any(key == own or key.startswith(f"{own}.") for own in OWN):
                raise ValueError(f"{key} is the sweep's own to set; leave it out (replicates are for seeds)")
            later = list(space)[list(space).index(key) :]
            if wrong := [other for other in parameter.when if other in later]:
                raise ValueError(f"{key}: when: {wrong[0]} stands below it; put it above what depends on it")
        return space

    @model_validator(mode="after")
    def _search_suits_the_space(self) -> "SweepConfig":
        ranges = [key for key, parameter in self.space.items() if parameter.values is None]
        grids = [key for key, parameter in self.space.items() if parameter.grid is not None]
        if self.search == "grid" and ranges:
            raise ValueError(f"search=grid: {ranges[0]} is a range; list its values with grid, or search=random")
        if self.search == "tpe" and grids:
            raise ValueError(f"search=tpe: {grids[0]} is a grid; use choice, or search=random")
        if self.search != "grid" and self.budget.trials is None and self.budget.hours is None:
            raise ValueError("budget: give trials, hours or both; nothing else ends the sweep")
        return self

    @model_validator(mode="after")
    def _mutates_its_own(self) -> "SweepConfig":
        unknown = [key for key in self.scheduler.mutate if key not in self.space]
        if unknown:
            raise ValueError(f"scheduler.mutate: {unknown[0]} is not in the space ({', '.join(self.space)})")
        if self.scheduler.kind == "pbt" and self.budget.trials is None:
            raise ValueError("scheduler.kind=pbt: give budget.trials, the size of the population")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives: {', '.join(names)}: two have the same name; one is enough")
        return self

    @property
    def looks(self) -> int:
        """How often each trial is measured."""
        return 1 if self.scheduler.kind == "none" else self.scheduler.looks

    @property
    def goal(self) -> ObjectiveConfig:
        """The objective that decides."""
        return self.objectives[0]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked."""

    config: SweepConfig
    tree: Tree  # of the run that trials differ from, as it is written
    file: Path  # that messages name
    base: RunConfig

    @property
    def folder(self) -> Path:
        """Where everything of it is."""
        return Path(self.config.sweeps) / self.config.name

    @property
    def n_trials(self) -> int | None:
        """How many there are to be; None: as many as the time allows."""
        config = self.config
        if config.search != "grid":
            return config.budget.trials
        return min(grid_size(self.space), config.budget.trials or grid_size(self.space))

    @property
    def space(self) -> Mapping[str, Parameter]:
        """The search space; with search=grid every choice is a grid."""
        if self.config.search != "grid":
            return self.config.space
        return {
            key: Parameter(grid=parameter.values, when=parameter.when) for key, parameter in self.config.space.items()
        }

    @property
    def given(self) -> dict[str, Any]:
        """What conditions of the space see of the run itself, by `key.path`."""
        return flattened(self.base.model_dump(mode="json"))

    @property
    def tracking(self) -> TrackingConfig:
        """Where the sweep and its trainings are logged: where the run itself would be."""
        tracking = self.base.tracking
        uri = tracking.uri or f"sqlite:///{Path(self.base.runs).resolve() / 'mlflow.db'}"
        return tracking.model_copy(update={"uri": uri, "tags": tracking.tags | {"sweep": self.config.name}})

    def at_random(self, number: int) -> Settings:
        """Random settings of a trial."""
        return at_random(self.space, self.given, self.config.seed, number)

    def run(self, settings: Settings, folder: Path, seed: int, parent: str = "", **tags: str) -> RunConfig:
        """One training with these settings, in a run directory of its own below `folder`.

        Raises:
            ConfigError: they do not go together; the message names them.
        """
        changes = merge(*(branch(key, value) for key, value in settings.items()))
        tracking = self.tracking
        own = {
            "name": f"seed-{seed}",
            "runs": str(folder),
            "store": self.base.store,
            "training": {"seed": seed, "threads": self.base.training.threads or max(int(self.config.trial.cpus), 1)},
            "tracking": tracking.model_dump(mode="json")
            | {"parent": parent, "tags": tracking.tags | tags, "log_network": False},
        }
        try:
            return run_of(merge(self.tree, changes, own), self.file)
        except ConfigError as error:
            said = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise ConfigError(
                f"{self.file}: settings that the space allows do not make a run: {said}\n{error}"
            ) from None


def load_sweep(path: Path, overrides: Tree) -> Sweep:
    """Read a sweep file, `overrides` laid over it.

    Raises:
        ConfigError: the file or its run file is missing or not valid, or the space allows what makes no run.
    """
    tree = merge({"name": path.stem}, read_tree(path), {key: overrides[key] for key in overrides.keys() - {"space"}})
    if space := overrides.get("space"):
        tree["space"] = tree.get("space", {}) | _parameters(space)
    config = validate(SweepConfig, tree, path)
    config = config.model_copy(update={"sweeps": absolute(config.sweeps)})
    if isinstance(config.run, str):
        file = path.parent / config.run
        written = read_tree(file)
    else:
        file, written = path, config.run
    sweep = Sweep(config, written, file, run_of({"name": path.stem} | written, file))
    _refuse_invalid(sweep)
    return sweep


def _parameters(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"alpha": {"choice": [1]}}}`, as the command line has it, as `{"model.alpha": {"choice": [1]}}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        is_inner = isinstance(value, Mapping) and not value.keys() & Parameter.model_fields.keys()
        found |= _parameters(value, f"{prefix}{key}.") if is_inner else {f"{prefix}{key}": value}
    return found


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"form": "full"}}` as `{"model.form": "full"}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _refuse_invalid(sweep: Sweep) -> None:
    """Raise unless the ends of every range, and some random settings, make runs."""
    middle = sweep.at_random(0)
    for key, value in by_ends(sweep.space):
        if key in middle:
            sweep.run(middle | {key: value}, sweep.folder, 0)
    for number in range(TRIED):
        sweep.run(sweep.at_random(number), sweep.folder, 0)
