"""A run as a job of a running cluster: what is sent there, and what is refused before. Nothing secret is sent."""

import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grndist.config import Tree, merge, parse_overrides, read_tree
from grndist.errors import UserError
from grndist.launch.jobs import JobServer, Standing
from grndist.runs import RunConfig, load_run
from grndist.storage import is_remote, open_storage

RUN_FILE = "run.yaml"
NOT_FOUND = 127  # a shell's exit status where there is no such command
PATHS = ("store", "runs", "genes.keep", "genes.regulators", "causalbench.summary.file")  # of a run, on the cluster


class SubmitError(UserError):
    """The run, as it is written, means nothing on another machine."""


class DetachedError(UserError):
    """The user has had enough of watching; the job goes on."""

    exit_status = 130  # as for a command that Ctrl-C ended


@dataclass(frozen=True)
class Job:
    """What is sent."""

    name: str
    entrypoint: str
    run_file: str  # YAML


def job_of(run_file: Path, overrides: list[str], preflight: bool = True, resume: bool = False) -> Job:
    """The job that trains a run on a cluster.

    Raises:
        UserError: the run file is not valid, or names what only this machine has.
    """
    config = load_run(run_file, overrides)
    refuse_local(merge(read_tree(run_file), parse_overrides(overrides)), config, run_file)
    name = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    return Job(name, entrypoint(preflight, resume), yaml.safe_dump(sent(config), sort_keys=False))


def entrypoint(preflight: bool, resume: bool) -> str:
    """The shell command that the cluster runs in a folder with the run file; its exit status is that of training."""
    train = ["exec", "grndist", "train", RUN_FILE, *(["--resume"] if resume else [])]
    return " && ".join([*([f"grndist preflight {RUN_FILE}"] if preflight else []), shlex.join(train)])


def sent(config: RunConfig) -> Tree:
    """Every setting, as a run file that gives the same config there."""
    tree = config.model_dump(mode="json")
    if not config.preset:
        del tree["preset"]
    if tree["workers"]:
        tree["workers"]["address"] = ""  # a job finds the cluster that runs it
    return tree


def refuse_local(written: Tree, config: RunConfig, where: Path) -> None:
    """Raise unless every path of a run, as it is written, can mean the same on another machine.

    Raises:
        StorageError: a URL has what may be a password in it.
        SubmitError: a relative path, or one of the two defaults that are.
    """
    for key in PATHS:
        path = _at(written, key) or ("runs" if key == "runs" else None)
        if path is not None and is_remote(path):
            open_storage(path)  # refuses what may be a password in it; nothing is read
        elif path is not None and not Path(path).is_absolute():
            raise SubmitError(
                f"{where}: {key}={path} is relative to a folder of this machine, which the cluster does not have; "
                f"give {key}=/PATH/... on storage that every node mounts, or a URL where it may be one"
            )
    if is_remote(config.runs) and config.tracking.kind == "mlflow" and not config.tracking.uri:
        raise SubmitError(
            f"{where}: with runs={config.runs} MLflow's database would be in the job's temporary folder and lost with "
            "it; give tracking.uri=http://SERVER:5000, or tracking.kind=none"
        )


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def submit(server: JobServer, job: Job) -> None:
    """Send a job: its run file, alone in a folder.

    Raises:
        ClusterError: the server does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="grndist-") as folder:
        (Path(folder) / RUN_FILE).write_text(job.run_file, encoding="utf-8")
        server.submit(job.name, job.entrypoint, Path(folder))


def followed(server: JobServer, job: str, show: Callable[[str], None]) -> Standing:
    """Show a job's log until it is over; how it ended.

    Raises:
        DetachedError: Ctrl-C; the job goes on.
    """
    try:
        return server.follow(job, show)
    except KeyboardInterrupt:
        raise DetachedError(f"detached from {job}, which goes on\n{coming_back(server.address, job)}") from None


def coming_back(address: str, job: str) -> str:
    """How to see more of a job, and how to stop it."""
    at = f"{job} --address {address}"
    return f"come back: grndist submit --follow {at}\nstop it:   grndist submit --stop {at}"


def summary(job: str, standing: Standing) -> str:
    """How a job has ended, and what to do where it has not ended well."""
    line = f"{job}: {standing.status.lower()}, exit status {standing.exit_status}"
    if standing.status == "SUCCEEDED":
        return line
    if standing.exit_status == NOT_FOUND:
        return f"{line}: there is no grndist where the cluster runs jobs; install it there as in the Dockerfile"
    return f"{line}: {standing.message}" if standing.message else line
