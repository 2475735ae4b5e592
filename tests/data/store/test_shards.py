import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist.data.store.shards import Codec, Shard, ShardedArray, StoreError, array_metadata, encode_shard, index_crc
from grndist.storage import open_storage

CODECS = [Codec("lz4", 3, "shuffle"), Codec("zstd", 1, "bitshuffle")]
CHUNK, SHARD = 64, 256


def values(n: int = 1000, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 300, n).astype(dtype)


def written(folder: Path, content: np.ndarray, codec: Codec = CODECS[0]) -> ShardedArray:
    """Write `content` in shards as the array a."""
    storage, shards = open_storage(folder), []
    metadata = array_metadata(content.shape, content.dtype, (CHUNK,), (SHARD,), codec)
    storage.write("a/zarr.json", json.dumps(metadata).encode())
    for number, start in enumerate(range(0, len(content), SHARD)):
        encoded = encode_shard(content[start : start + SHARD], CHUNK, SHARD, codec)
        storage.write(f"a/c/{number}", bytes(encoded))
        shards.append(Shard(f"a/c/{number}", len(encoded), index_crc(encoded)))
    return ShardedArray(storage, tuple(shards), content.dtype, len(content), CHUNK, SHARD)


def read(array: ShardedArray, ranges: list[tuple[int, int]]) -> np.ndarray:
    starts, stops = (np.array(bounds, dtype=np.int64) for bounds in zip(*ranges, strict=True))
    out = np.empty((stops - starts).sum(), dtype=array.dtype)
    array.read(starts, stops, out)
    return out


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("n", [1, 64, 255, 256, 257, 1000])
def test_zarr_reads_what_is_written(tmp_path: Path, dtype: type, codec: Codec, n: int):
    written(tmp_path, values(n, dtype), codec)
    found = zarr.open_array(tmp_path / "a", mode="r")
    assert found.dtype == dtype
    assert np.array_equal(found[:], values(n, dtype))


def test_the_bytes_are_those_that_zarr_writes(tmp_path: Path):
    written(tmp_path, values(1000))
    codecs = [zarr.codecs.BloscCodec(cname="lz4", clevel=3, shuffle="shuffle", typesize=2), zarr.codecs.Crc32cCodec()]
    other = zarr.create_array(
        tmp_path / "b", shape=(1000,), dtype=np.uint16, chunks=(CHUNK,), shards=(SHARD,), compressors=codecs,
        config={"write_empty_chunks": True}, attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )  # fmt: skip
    other[:] = values(1000)
    for number in range(4):
        assert (tmp_path / f"a/c/{number}").read_bytes() == (tmp_path / f"b/c/{number}").read_bytes()
    assert json.loads((tmp_path / "a/zarr.json").read_text()) == json.loads((tmp_path / "b/zarr.json").read_text())


def test_rows_of_a_dense_matrix_are_chunks(tmp_path: Path):
    dense = values(300 * 8).reshape(300, 8)
    storage = open_storage(tmp_path)
    metadata = array_metadata(dense.shape, dense.dtype, (16, 8), (64, 8), CODECS[1])
    storage.write("a/zarr.json", json.dumps(metadata).encode())
    for number, start in enumerate(range(0, 300, 64)):
        content = encode_shard(dense[start : start + 64].reshape(-1), 16 * 8, 64 * 8, CODECS[1])
        storage.write(f"a/c/{number}/0", bytes(content))
    assert np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], dense)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.lists(st.integers(0, 1000), max_size=12).map(sorted))
def test_any_ascending_ranges_can_be_read(tmp_path: Path, bounds: list[int]):
    array = written(tmp_path, values())
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False)) or [(5, 5)]
    assert np.array_equal(read(array, ranges), np.concatenate([values()[first:last] for first, last in ranges]))


# --- faults ---


@pytest.mark.parametrize("place", range(0, 470, 13))
def test_a_flipped_bit_is_an_error_that_names_the_shard(tmp_path: Path, place: int):
    array = written(tmp_path, values())
    file = tmp_path / "a/c/1"
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << place % 8
    file.write_bytes(bytes(content))
    assert np.array_equal(read(array, [(0, 256)]), values()[:256])
    with pytest.raises(StoreError, match=r"a/c/1 is damaged \(.* fails its checksum"):
        read(array, [(0, 1000)])


def test_a_shard_of_another_array_is_noticed_whatever_its_size(tmp_path: Path):
    array = written(tmp_path, values())
    other = encode_shard(np.sort(values(256)), CHUNK, SHARD, CODECS[0])
    other[:0] = bytes(array.shards[1].bytes - len(other))
    (tmp_path / "a/c/1").write_bytes(bytes(other))
    with pytest.raises(StoreError, match=r"a/c/1 is damaged \(.*a shard of another store\?"):
        read(array, [(300, 400)])


def test_a_shard_that_is_gone_or_short(tmp_path: Path):
    array = written(tmp_path, values())
    read(array, [(300, 310)])
    file = tmp_path / "a/c/1"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"a/c/1 is damaged \(it is shorter than"):
        read(array, [(300, 400)])
    file.unlink()
    with pytest.raises(StoreError, match=r"a/c/1 is damaged \(it is missing: was the store deleted"):
        read(array, [(300, 310)])
