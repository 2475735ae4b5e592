"""The settings of a run, and the run file they come from."""

import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from grndist import models
from grndist.config import Config, ConfigError, Tree, merge, parse_overrides, read_tree, validate
from grndist.data.normalise import ExpressionConfig
from grndist.data.selection import SelectionConfig
from grndist.optim import OptimizerConfig
from grndist.storage import absolute
from grndist.tracking import TrackingConfig

RENAMED = {"catran": "paper", "catran_submission": "submission", "catran_notebook": "notebook"}  # presets


class TrainingConfig(OptimizerConfig):
    """How the cells are visited, for how long, and how often to look."""

    epochs: int | None = Field(None, gt=0, description="length of the training in passes over the cells, or else")
    steps: int | None = Field(None, gt=0, description="length of the training in steps")
    source: Literal["auto", "cells", "moments"] = Field(
        "auto",
        description="what a step sees: a mini-batch of cells, or the second moments of all cells, summed in one pass "
        "(kind catran_d); auto: moments where the model can use them and they fit moments_memory",
    )
    moments_memory: float = Field(6.0, gt=0, description="GiB that moments, which grow with genes^2, may take")
    cells_per_step: int = Field(gt=0, description="over all workers together")
    genes_per_step: int | None = Field(gt=0, description="genes drawn for each step; null: all genes")
    sampling: Literal["shuffled", "per_perturbation"] = Field(
        "shuffled", description="per_perturbation: equal numbers of cells for every perturbation and for the controls"
    )
    cells_per_perturbation: int = Field(25, gt=0, description="in a row, with sampling per_perturbation")
    cells_per_epoch: int | None = Field(
        None,
        gt=0,
        description="length of an epoch with sampling per_perturbation, without the share of controls; null: as many "
        "as there are cells",
    )
    control_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of control cells in a step, with sampling per_perturbation; null: control cells and those "
        "of no gene of the panel together are one label like the others (CaTran's released code)",
    )
    streams: int | None = Field(
        None,
        gt=0,
        description="logical streams of cells, dealt to workers; part of what is trained, unlike the workers' number. "
        "1 is the published form; null: 1 in one process, 16 (or one for each of more workers) where there are several",
    )
    seed: int = Field(0, ge=0)
    threads: int | None = Field(
        None, gt=0, description="CPU threads; null: OMP_NUM_THREADS, or all cores. Another number rounds differently"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="of matrix products on a GPU; bf16: of everything that autocast knows to be safe"
    )
    checkpoint_every: int = Field(500, gt=0, description="steps")
    validation: float | None = Field(
        None, gt=0, lt=1, description="share of the cells of every label that is held out and never trained on"
    )
    validate_every: int = Field(
        10,
        gt=0,
        description="epochs (passes over the cells, in a run counted in steps, too) between looks at the loss on "
        "held-out cells; there is always one after the last step",
    )
    patience: int | None = Field(
        None, gt=0, description="stop after so many looks in a row without a lower loss on held-out cells; null: never"
    )
    log_every: int = Field(10, gt=0, description="steps")

    @field_validator("control_share")
    @classmethod
    def _leaves_labelled_cells(cls, share: float | None, info: Any) -> float | None:  # info: pydantic's ValidationInfo
        cells = info.data.get("cells_per_step")
        if share is None or cells is None:
            return share
        if info.data.get("sampling") != "per_perturbation":
            raise ValueError("it needs training.sampling=per_perturbation; set that, or leave this out")
        if cells - round(cells * share) < 1:
            raise ValueError(
                f"no perturbed cell is left in a step of {cells}; lower it, or raise training.cells_per_step"
            )
        return share

    @field_validator("streams")
    @classmethod
    def _every_stream_has_a_cell(cls, streams: int | None, info: Any) -> int | None:
        cells = info.data.get("cells_per_step", streams)
        if streams is not None and streams > cells:
            raise ValueError(
                f"each stream needs at least one cell a step, and training.cells_per_step is {cells}; give at most "
                f"{cells} streams, or raise training.cells_per_step"
            )
        return streams

    @field_validator("patience")
    @classmethod
    def _has_held_out_cells(cls, patience: int | None, info: Any) -> int | None:
        if patience is not None and info.data.get("validation", 0) is None:
            raise ValueError("it needs held-out cells; set training.validation, e.g. to 0.1, or leave this out")
        return patience

    @model_validator(mode="after")
    def _has_one_length(self) -> "TrainingConfig":
        if (self.epochs is None) == (self.steps is None):
            given = f"epochs={self.epochs} and steps={self.steps}"
            raise ValueError(
                f"{given}, one of which may be the preset's; set the other to null, e.g. training.steps=null"
            )
        return self

    @model_validator(mode="after")
    def _precision_is_the_devices(self) -> "TrainingConfig":
        if self.precision != "float32" and self.device == "cpu":
            raise ValueError(f"precision={self.precision} is for GPUs; set device=cuda, or precision=float32")
        return self


class WorkersConfig(Config):
    """Workers of a Ray cluster that train together. `workers: 4` is short for min and max 4.

    The batches, and but for rounding the result, do not depend on any of this.
    """

    min: int = Field(gt=0, description="fewest that may train; more than one are needed for nothing but speed")
    max: int = Field(
        gt=0, description="most; between min and max there are as many as the cluster has room for, at any time"
    )
    cpus_per_worker: float = Field(1, gt=0, description="reserved for each, and its number of CPU threads")
    gpus_per_worker: float = Field(0, ge=0, description="with training.device=cuda: 1, or a part of one")
    max_failures: int = Field(8, ge=0, description="how often workers may be lost before the run stops")
    controller_failure_limit: int = Field(
        3, ge=0, description="how often the cluster may fail to start them all within start_timeout before it stops"
    )
    start_timeout: float = Field(
        60, gt=0, description="seconds; more where machines are still to be started or packages to be installed"
    )
    resize_every: float = Field(60, gt=0, description="seconds between looks for room for more workers, up to max")
    collective_timeout: float = Field(
        600, ge=1, description="seconds that a worker waits for the others in a step before it gives up"
    )
    address: str = Field(
        "", description="of the Ray cluster; empty: that of RAY_ADDRESS, or of this machine, else a new one here"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_number(cls, given: Any) -> Any:
        if isinstance(given, int) and not isinstance(given, bool):
            return {"min": given, "max": given}
        if isinstance(given, dict) and given.keys() & {"min", "max"}:
            return {"min": given.get("max"), "max": given.get("min")} | given
        return given

    @model_validator(mode="after")
    def _is_a_range(self) -> "WorkersConfig":
        if self.min > self.max:
            raise ValueError(f"min={self.min} is more than max={self.max}; give workers=N, or min and max")
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether their number may change."""
        return self.min < self.max


class RunConfig(SelectionConfig):
    """One training run, completely: with what it sees of its store (`cells`, `genes`, `causalbench`)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run directory below `runs`")
    preset: str = Field("", description="the shipped settings this run started from")
    store: str = Field(min_length=1, description="a path or URL")
    runs: str = Field("runs", min_length=1, description="the run root, a path or URL: run directories, mlflow.db")
    model: models.ModelConfig
    expression: ExpressionConfig
    training: TrainingConfig
    tracking: TrackingConfig = TrackingConfig()
    workers: WorkersConfig | None = Field(None, description="on a Ray cluster; null: this process alone")

    @model_validator(mode="after")
    def _is_scaled_once(self) -> "RunConfig":
        if self.model.kind == "grn_vae" and self.expression.zscore != "none":
            raise ValueError(
                f"expression.zscore={self.expression.zscore}: model.kind=grn_vae scales its input by itself, after "
                "augmentation; set expression.zscore=none, and model.zscore and model.clip as you want them"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_its_device(self) -> "RunConfig":
        gpus = self.workers.gpus_per_worker if self.workers else 0
        if self.workers and (gpus > 0) != (self.training.device == "cuda"):
            raise ValueError(
                f"training.device={self.training.device} and workers.gpus_per_worker={gpus:g} do not go together; set "
                "training.device=cuda and workers.gpus_per_worker=1, or cpu and 0"
            )
        return self

    @model_validator(mode="after")
    def _every_worker_has_a_stream(self) -> "RunConfig":
        streams = self.training.streams
        if self.workers and streams is not None and streams < self.workers.max:
            raise ValueError(
                f"training.streams={streams} are dealt to as many workers at most, and workers.max={self.workers.max}; "
                f"give fewer workers, or training.streams={self.workers.max} or more"
            )
        return self


def load_run(path: Path, overrides: list[str]) -> RunConfig:
    """Read a run file; what wins, last first: overrides, the file, its preset, what the model's paper prescribes.

    Raises:
        ConfigError: the file is missing or not valid; every problem on a line of its own.
    """
    changes = [change for override in overrides for change in _of_workers(override)]
    return run_of(merge(_spelled_out(read_tree(path)), parse_overrides(changes)), path)


def run_of(tree: Tree, path: Path) -> RunConfig:
    """The run of a run file's contents; `path` is what messages name, and its stem the run's name if it has none.

    Raises:
        ConfigError: the contents are not valid; every problem on a line of its own.
    """
    tree = _spelled_out(tree)
    tree = merge(_preset(tree.get("preset"), path), tree)
    model = tree.get("model")
    kind = model.get("kind") if isinstance(model, dict) else None
    if kind not in models.CONFIGS:
        raise ConfigError(
            f"{path}: model.kind is {kind!r}; set it to one of {', '.join(models.CONFIGS)}, "
            f"or give a preset ({', '.join(presets())})"
        )
    tree = merge({"name": path.stem}, dict(models.CONFIGS[kind].run_defaults), tree)
    return _placed(validate(RunConfig, tree, path))


def _spelled_out(tree: Tree) -> Tree:
    """With `workers: 4` as a mapping, some keys of which may be overridden."""
    number = tree.get("workers")
    whole = isinstance(number, int) and not isinstance(number, bool)
    return tree | {"workers": {"min": number, "max": number}} if whole else tree


def _of_workers(override: str) -> list[str]:
    """`workers=4` as changes of two keys, beside which there may be others."""
    number = re.fullmatch(r"workers=(\d+)", override)
    return [f"workers.min={number[1]}", f"workers.max={number[1]}"] if number else [override]


def _placed(config: RunConfig) -> RunConfig:
    """With absolute paths, so that it means the same from any folder."""
    lists = {name: getattr(config.genes, name) for name in ("keep", "regulators")}
    genes = config.genes.model_copy(update={name: path and path.absolute() for name, path in lists.items()})
    causalbench = config.causalbench
    if causalbench is not None and causalbench.summary is not None:
        summary = causalbench.summary.model_copy(update={"file": causalbench.summary.file.absolute()})
        causalbench = causalbench.model_copy(update={"summary": summary})
    update = {"store": absolute(config.store), "runs": absolute(config.runs)}
    return config.model_copy(update=update | {"genes": genes, "causalbench": causalbench})


def presets() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("grndist.models") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _preset(name: Any, where: Path) -> Tree:
    if name is None:
        return {}
    if name in RENAMED:
        raise ConfigError(f"{where}: the preset {name!r} is now called {RENAMED[name]!r}; write that instead")
    if name not in presets():
        raise ConfigError(f"{where}: there is no preset {name!r}; the presets are {', '.join(presets())}")
    with resources.as_file(resources.files("grndist.models") / "presets" / f"{name}.yaml") as file:
        return read_tree(file)
