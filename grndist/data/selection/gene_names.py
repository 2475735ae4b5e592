"""Genes chosen by their names: by patterns, or from a list in a file."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from pydantic import AfterValidator

from grndist.data.view import SelectionError
from grndist.genes import some


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error}); an example: '^MT-'") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]  # a regular expression, searched for anywhere in a name


def matching(names: Sequence[str], patterns: Iterable[str]) -> Bool[np.ndarray, " genes"]:
    """Which names match one of the patterns or more."""
    either = [re.compile(pattern) for pattern in patterns]
    return np.array([any(one.search(name) for one in either) for name in names], dtype=bool)


def read_gene_list(file: Path, setting: str) -> list[str]:
    """The genes named in a text file, one a line, each once; empty lines and those that begin with # are skipped.

    Args:
        file: the list.
        setting: what the user calls it, for messages.

    Raises:
        SelectionError: the file cannot be read, or is no list.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise SelectionError(f"{file}: no such file; {setting} is a text file with one gene a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SelectionError(
            f"{file} cannot be read ({error}); {setting} is a text file with one gene a line"
        ) from None
    names = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not names:
        raise SelectionError(f"{file} names no gene; {setting} is a text file with one gene a line")
    return names


def listed(
    names: Sequence[str], file: Path, setting: str, place: str, known: Iterable[str] | None = None
) -> tuple[Bool[np.ndarray, " genes"], list[str]]:
    """Which of `names` are in the list, and the names of the list that are unknown, for the funnel.

    Args:
        names: the genes to choose from.
        file: the list.
        setting: what the user calls it, for messages.
        place: where the genes are, for messages.
        known: every name that is not to be reported; None: `names`.

    Raises:
        SelectionError: see `read_gene_list`; or no name of the list is among the genes.
    """
    wanted = read_gene_list(file, setting)
    chosen = np.isin(np.array(names, dtype=object), np.array(wanted, dtype=object))
    if not chosen.any():
        raise SelectionError(
            f"{file}: none of its {len(wanted)} genes ({some(wanted)}) is in {place}, whose genes are like "
            f"{some(names)}; use names of one kind (symbols or Ensembl, same case) in both"
        )
    there = set(names if known is None else known)
    unknown = [name for name in wanted if name not in there]
    if not unknown:
        return chosen, []
    return chosen, [f"genes: {len(unknown):,} of {len(wanted):,} names in {file} are not there: {some(unknown)}"]
