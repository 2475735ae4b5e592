"""Training where a run's settings say: in this process, or on the workers of a Ray cluster."""

from pathlib import Path

from grndist.runs import RunConfig, RunSummary, train_run


def train(config: RunConfig, resume: bool = False, overwrite: bool = False, part: float = 1.0) -> RunSummary:
    """`train_run`, or `train_on_ray` if there are workers, which do not stop at a `part` of their steps."""
    if config.workers is None:
        return train_run(config, resume=resume, overwrite=overwrite, part=part)
    from grndist.launch.train import train_on_ray

    return train_on_ray(config, resume, overwrite)


def go_on(config: RunConfig, part: float = 1.0) -> None:
    """Train, or go on where a training that was interrupted stands; nothing where it is finished."""
    resume = is_begun(config)
    overwrite = not resume and folder_of(config).exists()  # killed before there was anything to go on from
    train(config, resume, overwrite, part)


def is_begun(config: RunConfig) -> bool:
    """Whether there is something to go on from."""
    return (folder_of(config) / "config.yaml").is_file()


def folder_of(config: RunConfig) -> Path:
    """The run directory, which is on this machine."""
    return Path(config.runs) / config.name
