"""Looking at a store: what is in it, whether it is whole, and its first cells."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grndist.data.store import Store, manifest_of, size_problem
from grndist.genes import CONTROL, UNMAPPED, some
from grndist.progress import bar
from grndist.storage import Storage


@dataclass(frozen=True)
class Damage:
    """A file of a store that is not what was written."""

    key: str
    problem: str  # a sentence that names the key


def verify(where: str | Path) -> tuple[int, list[Damage]]:
    """Read every file of a store and compare it with the manifest; return how many there are and which are damaged.

    Raises:
        StoreError: there is no store, or its manifest itself is damaged.
    """
    storage, sizes, manifest = manifest_of(where)
    with bar() as progress:
        task = progress.add_task("verify, MiB", total=int(manifest["bytes"].sum()) >> 20)
        found, read = [], 0
        for size, damage in _checked(storage, sizes, manifest):
            read += size
            progress.update(task, completed=read >> 20)
            found += [] if damage is None else [damage]
    return len(manifest), found


def _checked(storage: Storage, sizes: dict[str, int], manifest: pd.DataFrame) -> Iterator[tuple[int, Damage | None]]:
    def check(key: str, size: int, sha256: str) -> tuple[int, Damage | None]:
        problem = size_problem(key, size, sizes) or _content_problem(storage, key, sha256)
        return size, None if problem is None else Damage(key, problem)

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(check, manifest["key"], manifest["bytes"].astype(int), manifest["sha256"])


def _content_problem(storage: Storage, key: str, sha256: str) -> str | None:
    try:
        content = storage.read(key)
    except FileNotFoundError:
        return f"{key} is missing"
    found = hashlib.sha256(content).hexdigest()
    return None if found == sha256 else f"{key} is not what was written (sha256 {found[:12]}, listed {sha256[:12]})"


def info(store: Store) -> list[tuple[str, str]]:
    """What is in a store, as names and texts."""
    about, obs, var = store.description, store.obs, store.var
    size = int(store.manifest["bytes"].sum())
    lines = [
        ("store", store.url),
        ("shape", f"{store.n_cells:,} cells x {store.n_genes:,} genes"),
        (
            "values",
            f"{store.state}, {100 * store.density:.1f} % not zero, median total {store.median_total:,.6g} a cell",
        ),
        (
            "size",
            f"{size / 2**20:,.1f} MiB in {len(store.manifest)} files, {size / store.n_cells / 1024:.2f} KiB a cell",
        ),
        ("layout", f"profile {store.profile}, format version {about['format_version']}, types {_types(store)}"),
        *_labels(store),
    ]
    if "split" in obs:
        counts = obs["split"].value_counts()
        lines.append(("split", ", ".join(f"{name} {counts[name]:,}" for name in counts.index)))
    if "source_file" in obs and obs["source_file"].nunique() > 1:
        counts = obs["source_file"].value_counts()
        lines.append(("files", ", ".join(f"{name} {counts[name]:,}" for name in counts.index)))
    flat = var.index[var["variance"] == 0]
    if len(flat):
        lines.append(("constant genes", f"{len(flat):,}: {some(list(flat))}"))
    return [*lines, ("source", str(about["source"])), ("digest", store.digest)]


def _types(store: Store) -> str:
    values, columns = store.dtypes
    return f"{values.name}" if store.profile == "archive" else f"{values.name} and {columns.name}"


def _labels(store: Store) -> list[tuple[str, str]]:
    counts = store.obs["perturbation"].astype(str).value_counts()
    perturbed, control = store.perturbed, store.perturbed == CONTROL
    genes = [store.panel.names[gene] for gene in np.unique(perturbed[perturbed >= 0])]
    kinds = {"control": control, "with one perturbed gene": perturbed >= 0, "with another label": perturbed == UNMAPPED}
    lines = [
        ("cells", ", ".join(f"{cells.sum():,} {kind}" for kind, cells in kinds.items())),
        ("perturbed genes", f"{len(genes):,}: {some(genes)}" if genes else "none"),
    ]
    single = list(counts.index[counts == 1])
    return [*lines, ("labels of one cell", f"{len(single):,}: {some(single)}")] if single else lines


def head(store: Store, n_cells: int, n_genes: int) -> pd.DataFrame:
    """The first cells: perturbation, totals, and the genes that are seen most in them."""
    n_cells = min(n_cells, store.n_cells)
    values = store.read_rows(0, n_cells)
    sums = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()
    order = np.argsort(-sums, kind="stable")[:n_genes]
    about = store.obs[["perturbation", "total_counts", "n_genes"]].iloc[:n_cells]
    names = [store.panel.names[gene] for gene in order]
    return about.join(pd.DataFrame(values[:, order].toarray(), index=about.index, columns=names))
