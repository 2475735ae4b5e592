"""Looks over files that start a Ray cluster, without a network: those of `ray up`, KubeRay's RayJob, Slurm's sbatch."""

from collections.abc import Sequence
from pathlib import Path

from grndist.launch.cluster_files import kuberay, ray_up, slurm
from grndist.launch.cluster_files.problems import ClusterFileError
from grndist.launch.cluster_files.read import KUBERAY, RAY_UP, read

__all__ = ["ClusterFileError", "check", "checked"]


def check(path: Path) -> list[str]:
    """Everything that is wrong with a file, a line each: its place there, what it is, what to do.

    Raises:
        ClusterFileError: the file cannot be read, or is none of the three kinds.
    """
    return _looked_over(path)[1]


def checked(paths: Sequence[Path]) -> list[str]:
    """A line "FILE: ok (KIND)" for each file.

    Raises:
        ClusterFileError: every problem of all of them.
    """
    found = [(path, *_looked_over(path)) for path in paths]
    wrong = [(path, kind, lines) for path, kind, lines in found if lines]
    if wrong:
        raise ClusterFileError("\n".join(_shown(*one) for one in wrong))
    return [f"{path}: ok ({kind})" for path, kind, _ in found]


def _looked_over(path: Path) -> tuple[str, list[str]]:
    file = read(path)
    if file.kind == RAY_UP:
        return file.kind, ray_up.problems(file.tree)
    if file.kind == KUBERAY:
        return file.kind, kuberay.problems(file.tree)
    return file.kind, slurm.problems(file.text)


def _shown(path: Path, kind: str, lines: list[str]) -> str:
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n".join([f"{path}: {count} ({kind})", *(f"  {line}" for line in lines)])
