"""Reference networks in layouts that are no table of edges: CORUM's complexes, STRING's links, ChIP-Atlas' targets.

What each of them calls its columns is known only here. A pair of CORUM or STRING has no direction and comes both ways
round, as the CausalBench package reads them (1.1.2, no cut-off of STRING's scores).
"""

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pandas as pd

from grndist.networks.io import EdgeFileError, find_column, named_by_first_row, read_rows

MEMBERS = ("subunits(gene name)", "subunits_gene_name")  # CORUM to release 4 · 5
BOUND = ("target_genes", "target genes")  # ChIP-Atlas
STRING_HEADER = ("protein1", "protein2")
STRING_ID = r"\d+\.\S+"  # 9606.ENSP00000000233
BEELINE_NETWORKS = ("GroundTruthNetwork.csv", "refNetwork.csv")
TABLES = (".tsv", ".txt", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Pairs:
    """The edges of a file, one at a place, and whether the first gene of each regulates the second."""

    regulators: pd.Series
    targets: pd.Series
    is_directed: bool


def inside(folder: Path) -> list[Path]:
    """The files that a folder given as a reference stands for: BEELINE's network, or ChIP-Atlas' tables.

    Raises:
        EdgeFileError: it holds neither.
    """
    for name in BEELINE_NETWORKS:
        if (folder / name).is_file():
            return [folder / name]
    tables = sorted(path for path in folder.iterdir() if path.name.lower().endswith(TABLES))
    if tables and all(_is_chip_atlas(_first_line(path)) for path in tables):
        return tables
    raise EdgeFileError(
        f"{folder} is a directory without {' or '.join(BEELINE_NETWORKS)} and not one of ChIP-Atlas' target tables; "
        "give the path of one file"
    )


def published(path: Path) -> Pairs | None:
    """The edges of a text file in one of these layouts; None if it has another, which a table of edges may be.

    - CORUM (`humanComplexes.txt`, `corum_humanComplexes.txt`): all pairs of genes of one complex, undirected.
    - STRING (`9606.protein.links...txt.gz`, also physical or detailed): undirected. Proteins get the gene names of
      `*protein.info*` in the same folder; those that it lacks are left out.
    - ChIP-Atlas' target genes (`STAT1.5.tsv`): from the protein that the column `STAT1|Average` names to each gene
      whose average, over all experiments of the file, is above 0; directed.

    Raises:
        EdgeFileError: the file is damaged, or there are no names for STRING's proteins.
    """
    first = _first_line(path)
    if tuple(first.split(" ")[:2]) == STRING_HEADER:
        return _string(path)
    names = first.split("\t")
    if find_column(names, MEMBERS) is not None:
        return _corum(path, names)
    return _chip_atlas(path) if _is_chip_atlas(first) else None


def _corum(path: Path, names: Sequence[str]) -> Pairs:
    try:
        # complexes have notes in which anything may stand, quotes too
        table = pd.read_csv(path, sep="\t", dtype=str, usecols=[find_column(names, MEMBERS)], na_filter=False)
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise EdgeFileError(f"{path} is not a CORUM table ({str(error).strip()}); download it again") from None
    pairs: dict[tuple[str, str], None] = {}
    for complex_ in table.iloc[:, 0]:
        members = dict.fromkeys(gene.strip() for gene in complex_.split(";"))
        pairs |= dict.fromkeys(permutations([gene for gene in members if gene not in ("", "None")], 2))
    return Pairs(pd.Series([a for a, _ in pairs], dtype=object), pd.Series([b for _, b in pairs], dtype=object), False)


def _string(path: Path) -> Pairs:
    try:
        links = pd.read_csv(path, sep=" ", usecols=list(STRING_HEADER), dtype="category")
    except (pd.errors.ParserError, UnicodeDecodeError, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise EdgeFileError(f"{path} is not a table of STRING's links ({error}); download it again") from None
    proteins = [links[name].astype(str).astype(object) for name in STRING_HEADER]
    if len(links) and re.fullmatch(STRING_ID, proteins[0].iloc[0]):
        of_protein = _gene_of_protein(path)
        proteins = [one.map(of_protein) for one in proteins]
        known = proteins[0].notna() & proteins[1].notna()
        if not known.any():
            raise EdgeFileError(f"{path}: none of its proteins is in protein.info beside it; take that of one release")
        proteins = [one[known] for one in proteins]
    a, b = proteins
    return Pairs(pd.concat([a, b], ignore_index=True), pd.concat([b, a], ignore_index=True), False)


def _gene_of_protein(path: Path) -> dict[str, str]:
    """STRING's names of genes, by protein, from the file beside its links."""
    found = sorted(path.parent.glob("*protein.info*"))
    if not found:
        raise EdgeFileError(
            f"{path} names proteins by STRING's identifiers; put protein.info of the same release beside it (from "
            "STRING's downloads, e.g. 9606.protein.info.v11.5.txt.gz), which has their genes"
        )
    table = named_by_first_row(read_rows(found[0]))
    protein, gene = find_column(table.columns, ["#string_protein_id"]), find_column(table.columns, ["preferred_name"])
    if protein is None or gene is None:
        raise EdgeFileError(f"{found[0]} lacks the columns #string_protein_id and preferred_name; download it again")
    return dict(zip(table.iloc[:, protein], table.iloc[:, gene], strict=True))


def _chip_atlas(path: Path) -> Pairs:
    table = named_by_first_row(read_rows(path))
    protein = str(table.columns[1]).split("|")[0]
    bound = pd.to_numeric(table.iloc[:, 1], errors="coerce") > 0
    targets = table.iloc[:, 0][bound].reset_index(drop=True)
    return Pairs(pd.Series([protein] * len(targets), dtype=object), targets, True)


def _is_chip_atlas(line: str) -> bool:
    names = line.split("\t")
    return len(names) > 1 and names[0].lower() in BOUND and names[1].endswith("|Average")


def _first_line(path: Path) -> str:
    """Of a text file, as far as it can be read; whatever is wrong with it, reading the table says."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.readline().decode("utf-8-sig").rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
