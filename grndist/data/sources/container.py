"""HDF5 files and Zarr folders alike: a tree of named arrays, opened anew for every use.

Zarr reads zeros where the file of a chunk is missing, so an array of numbers is asked for its files first.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TypeAlias

import h5py
import zarr

from grndist.data.sources.source import SourceError, readable

Tree: TypeAlias = h5py.Group | zarr.Group
Array: TypeAlias = h5py.Dataset | zarr.Array
ZARR_MARKS = ("zarr.json", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group, or is called one."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).exists() for mark in ZARR_MARKS))


@contextmanager
def opened(path: Path, place: str = "") -> Iterator[Tree]:
    """The tree of a file or folder.

    Args:
        path: an HDF5 file or a Zarr folder.
        place: what is read of it, for messages.

    Raises:
        SourceError: it is damaged, now or while the block reads.
    """
    if path.is_dir():
        with readable(path, f"AnnData Zarr{place}"):
            yield zarr.open_group(path, mode="r", use_consolidated=False)
    else:
        with readable(path, f"HDF5 (h5ad or 10x h5){place}"), h5py.File(path, "r") as file:
            yield file


def check_chunks(path: Path, array: Array) -> None:
    """Refuse a Zarr array of which a chunk (or shard) has no file; HDF5 has no such files.

    Raises:
        SourceError: with the first missing key.
    """
    if isinstance(array, h5py.Dataset):
        return
    files, folder = array.shards or array.chunks, path / array.path
    there = {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}
    numbers = product(*(range(-(-length // size)) for length, size in zip(array.shape, files, strict=True)))
    missing = [key for key in map(array.metadata.encode_chunk_key, numbers) if folder / key not in there]
    if missing:
        raise SourceError(
            f"{path}: {len(missing)} files of {array.path} are missing, the first is {array.path}/{missing[0]}; Zarr "
            "would read zeros there: copy the folder again, or, where zeros are meant, write it again with Zarr's "
            "option array.write_empty_chunks"
        )
