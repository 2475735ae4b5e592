"""Zarr v3's sharded arrays as bytes: encode a shard, read ranges of elements straight from shards.

A shard file is its inner chunks (bytes -> blosc -> crc32c) one after the other, then an index of (offset, bytes) for
each chunk, itself followed by a crc32c. Chunks are runs of the array's elements in C order, so a two-dimensional
array is stored here only in chunks of whole rows. Reading through Zarr gives the same values at half the speed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import google_crc32c
import numpy as np
from jaxtyping import Int64, Shaped
from numcodecs import blosc

from grndist.errors import UserError
from grndist.storage import Storage

blosc.use_threads = False  # as Zarr sets it too: with threads of its own its bytes are not the same every time
RESIDUE = 0x48674BC7  # CRC-32C of any bytes followed by their own CRC-32C, little endian
ABSENT = 2**64 - 1  # offset and size of a chunk that is not in a shard: it would lie beyond the array's end


class StoreError(UserError):
    """A store is missing, damaged, or not one that this version reads."""


@dataclass(frozen=True)
class Codec:
    """How inner chunks are compressed."""

    name: Literal["lz4", "zstd"]
    level: int
    shuffle: Literal["shuffle", "bitshuffle"]


def array_metadata(
    shape: Sequence[int], dtype: np.dtype, chunks: Sequence[int], shards: Sequence[int], codec: Codec
) -> dict[str, Any]:
    """The zarr.json of a sharded array that AnnData reads as one of its own."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    compressed = {
        "typesize": dtype.itemsize,
        "cname": codec.name,
        "clevel": codec.level,
        "shuffle": codec.shuffle,
        "blocksize": 0,
    }
    sharding = {
        "chunk_shape": list(chunks),
        "codecs": [little, {"name": "blosc", "configuration": compressed}, {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {"encoding-type": "array", "encoding-version": "0.2.0"},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def encode_shard(values: Shaped[np.ndarray, " elements"], chunk: int, shard: int, codec: Codec) -> bytearray:
    """The bytes of one shard file.

    Args:
        values: the shard's elements, in C order; fewer than `shard` only in the array's last shard.
        chunk: elements of an inner chunk; the last one is filled up with zeros, as Zarr's grid demands.
        shard: elements of a whole shard.
        codec: compression.
    """
    content = bytearray()
    index = np.full((shard // chunk, 2), ABSENT, dtype="<u8")
    shuffle = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}[codec.shuffle]
    for number, start in enumerate(range(0, len(values), chunk)):
        part = values[start : start + chunk]
        if len(part) < chunk:
            part = np.concatenate([part, np.zeros(chunk - len(part), dtype=part.dtype)])
        encoded = blosc.compress(part, codec.name.encode(), codec.level, shuffle)
        index[number] = len(content), len(encoded) + 4
        content += encoded
        content += _crc(encoded)
    content += index.tobytes()
    content += _crc(index.tobytes())
    return content


def index_crc(content: bytes | bytearray) -> str:
    """The checksum of a shard's own index, as the manifest keeps it: shards with other chunks have another."""
    return bytes(content[-4:]).hex()


def _crc(content: bytes) -> bytes:
    return google_crc32c.value(content).to_bytes(4, "little")


@dataclass(frozen=True)
class Shard:
    """One shard file as the manifest knows it."""

    key: str
    bytes: int
    index: str  # index_crc


@dataclass(frozen=True)
class ShardedArray:
    """Reads ranges of elements of one array; safe to use from several threads."""

    storage: Storage
    shards: tuple[Shard, ...]
    dtype: np.dtype
    n_elements: int
    chunk: int  # elements
    shard: int  # elements
    _indexes: dict[int, Int64[np.ndarray, "chunks 2"]] = field(default_factory=dict, compare=False)

    def read(
        self, starts: Int64[np.ndarray, " ranges"], stops: Int64[np.ndarray, " ranges"], out: Shaped[np.ndarray, " _"]
    ) -> None:
        """Write the elements of ascending, disjoint ranges one after the other into `out`.

        Raises:
            StoreError: a shard is missing, cut short, another store's, or fails a checksum; it is named.
        """
        filled = starts < stops
        starts, stops = starts[filled], stops[filled]
        if not len(starts):
            return
        places = np.concatenate([[0], np.cumsum(stops - starts)])
        scratch = np.empty(self.chunk, dtype=self.dtype)
        at = 0  # the first range that is not wholly written
        for number, encoded in self._encoded(_touched(starts, stops, self.chunk)):
            first, last = number * self.chunk, (number + 1) * self.chunk
            if starts[at] <= first and last <= stops[at]:
                place = places[at] + first - starts[at]
                self._decode(number, encoded, out[place : place + self.chunk])
                at += int(stops[at] == last)
                continue
            self._decode(number, encoded, scratch)
            while at < len(starts) and starts[at] < last:
                begin, end = max(starts[at], first), min(stops[at], last)
                place = places[at] + begin - starts[at]
                out[place : place + end - begin] = scratch[begin - first : end - first]
                if stops[at] > last:
                    break
                at += 1

    def _encoded(self, chunks: Int64[np.ndarray, " chunks"]) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of every chunk asked for, in order; one request a shard."""
        per_shard = self.shard // self.chunk
        bounds = np.flatnonzero(np.diff(chunks // per_shard)) + 1
        for begin, end in pairwise([0, *bounds.tolist(), len(chunks)]):
            numbers = chunks[begin:end]
            shard = int(numbers[0]) // per_shard
            entries = self._index(shard)[numbers - shard * per_shard]
            pieces = self._bytes(shard, entries[:, 0].tolist(), entries[:, 1].tolist())
            yield from zip(numbers.tolist(), pieces, strict=True)

    def _decode(self, number: int, encoded: bytes, out: np.ndarray) -> None:
        if google_crc32c.value(encoded) != RESIDUE:
            raise self._damaged(number * self.chunk // self.shard, f"chunk {number} fails its checksum")
        blosc.decompress(encoded, out)

    def _index(self, shard: int) -> Int64[np.ndarray, "chunks 2"]:
        if shard not in self._indexes:
            size = 16 * (self.shard // self.chunk) + 4
            (content,) = self._bytes(shard, [self.shards[shard].bytes - size], [size])
            if google_crc32c.value(content) != RESIDUE:
                raise self._damaged(shard, "its index fails its checksum")
            if index_crc(content) != self.shards[shard].index:
                raise self._damaged(shard, "it is not the file that was written: a shard of another store?")
            self._indexes[shard] = np.frombuffer(content[:-4], dtype="<i8").reshape(-1, 2)
        return self._indexes[shard]

    def _bytes(self, shard: int, starts: list[int], lengths: list[int]) -> list[bytes]:
        try:
            return self.storage.read_ranges(self.shards[shard].key, starts, lengths)
        except FileNotFoundError:
            raise self._damaged(shard, "it is missing: was the store deleted while it was read?") from None
        except EOFError:
            raise self._damaged(shard, "it is shorter than when it was written") from None

    def _damaged(self, shard: int, what: str) -> StoreError:
        return StoreError(
            f"{self.storage.url}: {self.shards[shard].key} is damaged ({what}); restore the store from a copy or "
            "ingest it again"
        )


def _touched(
    starts: Int64[np.ndarray, " ranges"], stops: Int64[np.ndarray, " ranges"], chunk: int
) -> Int64[np.ndarray, " chunks"]:
    """Numbers of the chunks that hold some element of the ranges, ascending."""
    first, count = starts // chunk, (stops - 1) // chunk - starts // chunk + 1
    ends = np.cumsum(count)
    return np.unique(np.repeat(first - (ends - count), count) + np.arange(ends[-1]))
