"""Reads a cluster file and tells by its content which kind it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grndist.config import Tree
from grndist.launch.cluster_files.problems import ClusterFileError

RAY_UP, KUBERAY, SLURM = "ray up", "KubeRay RayJob", "Slurm sbatch"
EXPECTED = (
    "a file of `ray up` (with cluster_name and provider), a RayJob of KubeRay (kind: RayJob) or an sbatch script "
    "(#!/bin/bash, #SBATCH) was expected; cluster/ has one of each"
)


@dataclass(frozen=True)
class ClusterFile:
    """A file's text, and the mapping in it where it is YAML."""

    kind: str
    text: str
    tree: Tree


def read(path: Path) -> ClusterFile:
    """The file and its kind.

    Raises:
        ClusterFileError: it is missing, empty, not YAML, more than one document, or of no kind that is known.
    """
    text = _text(path)
    if not text.strip():
        raise ClusterFileError(f"{path} is empty; {EXPECTED}")
    if text.startswith("#!") or any(line.startswith("#SBATCH") for line in text.splitlines()):
        return ClusterFile(SLURM, text, {})
    tree = _tree(path, text)
    return ClusterFile(_kind(path, tree), text, tree)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # as bytes, which keeps the line ends as they are
    except FileNotFoundError:
        raise ClusterFileError(f"{path}: no such file; {EXPECTED}") from None
    except IsADirectoryError:
        raise ClusterFileError(f"{path} is a folder; {EXPECTED}") from None
    except UnicodeDecodeError as error:
        raise ClusterFileError(f"{path} is not a text file in UTF-8 ({error}); {EXPECTED}") from None


def _tree(path: Path, text: str) -> Tree:
    try:
        documents: list[Any] = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ClusterFileError(f"{path} is not readable as YAML: {error}\nmend it there; tabs never indent") from None
    if len(documents) > 1:
        raise ClusterFileError(
            f"{path} holds {len(documents)} YAML documents, and one was expected; keep claims of volumes in another "
            "file, and Secrets in none"
        )
    if not isinstance(documents[0], dict):
        raise ClusterFileError(f"{path} holds a {type(documents[0]).__name__}, not a mapping; {EXPECTED}")
    return documents[0]


def _kind(path: Path, tree: Tree) -> str:
    if tree.keys() & {"cluster_name", "provider"}:
        return RAY_UP
    if tree.get("kind") == "RayJob" or str(tree.get("apiVersion")).startswith("ray.io/"):
        return KUBERAY
    said = f"kind: {tree['kind']}" if "kind" in tree else f"the keys {', '.join(map(str, tree))}"
    raise ClusterFileError(f"{path} has {said}; {EXPECTED}")
