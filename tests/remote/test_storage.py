"""Every way of storing keeps the same contract; a dictionary is the reference."""

import logging
import os
import pickle
import socket
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist.errors import UserError
from grndist.storage import (
    Storage,
    StorageError,
    absolute,
    delivered,
    fetched,
    is_remote,
    joined,
    open_storage,
    refuse_taken,
)
from grndist.storage import remote as remote_module
from grndist.storage.local import LocalFolder
from grndist.storage.remote import FsspecFolder, ObjectFolder

KINDS: dict[str, Callable[[str], Storage]] = {"obstore": ObjectFolder, "fsspec": FsspecFolder}


@pytest.fixture(params=["local", "file", "obstore", "fsspec", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(tmp_path / "some" / "place")
    if request.param == "file":
        return open_storage(f"{tmp_path.as_uri()}/some/place")
    if request.param == "memory":
        return open_storage(f"memory://{uuid.uuid4().hex}/place")
    return KINDS[request.param](request.getfixturevalue("bucket") + "/some/place")


@pytest.fixture(params=list(KINDS))
def remote(request: pytest.FixtureRequest) -> Callable[[str], Storage]:
    return KINDS[request.param]


# --- the contract ---


def test_what_was_written_is_read_listed_and_deleted(storage: Storage):
    files = {"zarr.json": b"{}", "X/data/c/0": bytes(range(256)), "X/data/c/10": b"", "Xtra/a": b"x", "obs/é b": b"y"}
    assert storage.sizes() == {}
    for key, content in files.items():
        storage.write(key, content)
    assert storage.sizes() == {key: len(content) for key, content in sorted(files.items())}
    assert list(storage.sizes()) == sorted(files)
    assert storage.sizes("X") == {"X/data/c/0": 256, "X/data/c/10": 0}
    assert storage.sizes("X/data/c/1") == storage.sizes("nowhere") == {}
    assert {key: storage.read(key) for key in files} == files
    storage.delete(["X/data/c/0", "nowhere", "zarr.json"])
    assert list(storage.sizes()) == ["X/data/c/10", "Xtra/a", "obs/é b"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_are_written_and_replace_what_is_there(storage: Storage, kind: type):
    storage.write("a/b", kind(b"long before"))
    storage.write("a/b", kind(b"now"))
    assert storage.read("a/b") == b"now"
    assert storage.sizes() == {"a/b": 3}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_ranges_are_slices(storage: Storage, data: st.DataObject):
    content = data.draw(st.binary(min_size=1, max_size=300))
    ranges = data.draw(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 300)), max_size=6))
    ranges = [(start, min(length, len(content) - start)) for start, length in ranges if start < len(content)]
    storage.write("file", content)
    found = storage.read_ranges("file", [start for start, _ in ranges], [length for _, length in ranges])
    assert found == [content[start : start + length] for start, length in ranges]


@pytest.mark.parametrize(("start", "length"), [(8, 5), (10, 1), (2000, 5)])
def test_a_range_beyond_the_end_is_an_error_not_fewer_bytes(storage: Storage, start: int, length: int):
    storage.write("a/file", b"0123456789")
    with pytest.raises(EOFError, match="a/file ends before"):
        storage.read_ranges("a/file", [0, start], [2, length])
    with pytest.raises(EOFError, match="a/file ends before"):
        storage.read_ranges("a/file", [start], [length])


def test_a_missing_file_is_named(storage: Storage):
    storage.write("a/b", b"1")
    for key in ("a/c", "a", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"{key}: no such file"):
            storage.read(key)
        with pytest.raises(FileNotFoundError, match=f"{key}: no such file"):
            storage.read_ranges(key, [0], [1])


def test_a_deleted_file_is_noticed_by_the_next_read(storage: Storage):
    storage.write("a", b"0123456789")
    assert storage.read_ranges("a", [3], [2]) == [b"34"]
    storage.delete(["a"])
    with pytest.raises(FileNotFoundError):
        storage.read_ranges("a", [3], [2])


def test_a_large_file_goes_up_in_parts_and_comes_back(storage: Storage):
    content = os.urandom(1000) * 11_000  # beyond the size of one part
    storage.write("large", content)
    assert storage.sizes() == {"large": len(content)}
    assert storage.read("large") == content
    assert storage.read_ranges("large", [5, 9_000_000], [2_000_000, 3]) == [
        content[5:2_000_005],
        content[9_000_000:][:3],
    ]


def test_it_travels_to_other_processes_and_serves_many_threads(storage: Storage):
    storage.write("a", b"0123456789")
    there = pickle.loads(pickle.dumps(storage))
    assert there == storage
    assert there.url == storage.url
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: there.read_ranges("a", [1, 5], [2, 2])[1], range(40))) == {b"56"}


# --- this machine ---


def test_a_file_in_the_making_is_not_listed(tmp_path: Path):
    storage = LocalFolder(str(tmp_path), tmp_path)
    (tmp_path / ".a.tmp-12345678").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"whole")
    assert storage.sizes() == {".hidden": 5}


def test_a_link_that_leads_nowhere_is_not_listed(tmp_path: Path):
    (tmp_path / "whole").write_bytes(b"12")
    (tmp_path / "link").symlink_to(tmp_path / "whole")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "below-a-file").symlink_to(tmp_path / "whole" / "x")
    assert open_storage(tmp_path).sizes() == {"link": 2, "whole": 2}


def test_files_may_come_and_go_while_they_are_listed(tmp_path: Path):
    storage = open_storage(tmp_path)
    storage.write("stays", b"1")
    keys = [f"{number}" for number in range(300)]

    def come_and_go() -> None:
        for _ in range(3):
            for key in keys:
                (tmp_path / key).write_bytes(b"")
            storage.delete(keys)

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(come_and_go)
        while not going.done():
            assert storage.sizes()["stays"] == 1
        going.result()


def test_a_folder_where_a_file_should_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file.*could not be written"):
        open_storage(tmp_path).write("file/below", b"1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path):
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(StorageError, match="secret: access was refused"):
        open_storage(tmp_path).read("secret")


# --- URLs ---


def test_names_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert [is_remote(where) for where in ("s3://b/k", "gs://b", "memory://x", "runs", "/a/b", "c:/a", Path("a"))] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    assert joined("s3://b/runs/", "a", "b/c") == "s3://b/runs/a/b/c"
    assert joined("runs", "a", "b") == joined(Path("runs"), "a", "b") == "runs/a/b"
    assert absolute("s3://b/runs/") == "s3://b/runs"
    assert absolute("runs") == str(tmp_path / "runs")


def test_obstore_is_asked_first_and_fsspec_where_it_is_missing_or_does_not_know(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(open_storage("s3://b/k"), ObjectFolder)
    assert isinstance(open_storage("memory://b/k"), FsspecFolder)
    monkeypatch.setattr("grndist.storage.opening.find_spec", lambda name: None)
    assert isinstance(open_storage("s3://b/k"), FsspecFolder)


def every_use(storage: Storage) -> Iterator[Callable[[], object]]:
    yield storage.sizes
    yield lambda: storage.read("a")
    yield lambda: storage.read_ranges("a", [0], [1])
    yield lambda: storage.write("a", b"1")
    yield lambda: storage.delete(["a"])


def refused(storage: Storage, words: str) -> list[str]:
    messages = []
    for use in every_use(storage):
        with pytest.raises(StorageError, match=words) as caught:
            use()
        messages.append(str(caught.value))
    return messages


def test_a_missing_bucket_is_named_whatever_is_asked_of_it(s3_environment: str, remote: Callable[[str], Storage]):
    refused(remote("s3://nobody-has-this/x"), r"s3://nobody-has-this/x: there is no such bucket .*; create it")


def test_a_server_that_is_not_there_is_said(
    s3_environment: str, remote: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"s3://b/x: it does not answer .*AWS_ENDPOINT_URL"):
            remote("s3://b/x").read("a")


def test_a_server_that_says_nothing_is_given_up(
    s3_environment: str, remote: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(remote_module, "RETRY_SECONDS", 0.1)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(StorageError, match="s3://b/x: it does not answer"):
            remote("s3://b/x").read("a")


@contextmanager
def keys_are_checked(server: str) -> Iterator[None]:
    def asked(count: bytes) -> None:
        header = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset-auth", count, header)).close()

    asked(b"0")
    try:
        yield
    finally:
        asked(b"inf")


def test_refused_access_is_said_without_the_key(
    s3_environment: str, bucket: str, remote: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    with keys_are_checked(s3_environment):
        messages = refused(remote(f"{bucket}/x"), "access was refused .*; check that the credentials are valid")
    assert not [message for message in messages if "AKIAOFNOBODY" in message or "hush" in message]


def test_no_credentials_is_said_with_where_to_put_them(
    s3_environment: str, bucket: str, remote: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(remote(f"{bucket}/x"), r"no credentials were found.*AWS_PROFILE")


def test_a_profile_is_found(
    s3_environment: str, bucket: str, remote: Callable[[str], Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "profiles").write_text("[lab]\naws_access_key_id = of-the-lab\naws_secret_access_key = hush\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    storage = remote(f"{bucket}/x")
    storage.write("a", b"1")
    assert storage.read("a") == b"1"


def test_a_scheme_that_nothing_knows_or_has_a_library_for_is_named():
    with pytest.raises(StorageError, match=r"foo://b/x: foo:// is no scheme that can be read or written"):
        open_storage("foo://b/x").sizes()
    with pytest.raises(StorageError, match=r"sftp://h/x: the library for sftp:// is missing .*paramiko.*; install it"):
        open_storage("sftp://h/x").sizes()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp://me:hush@host/x", r"sftp://\.\.\.: a user name, password or token in a URL"),
        ("https://hush@host/x", r"https://\.\.\.: a user name, password or token"),
        ("s3://key:hush/hush@bucket/x", r"s3://\.\.\.: a user name, password or token"),  # as cloud keys may have it
        ("s3://key:hu@sh?hush/hush@bucket/x", r"s3://\.\.\.: a user name, password or token"),
        ("abfs://container:hush@account/x", r"abfs://\.\.\.: a user name, password or token"),
        ("file://hush@host/x", r"file://\.\.\.: a user name, password or token"),
        ("https://host:80/x?sig=hush", r"https://host:80/x\?\.\.\.: a query or fragment"),
        ("https://host/x#hush?sig=hush@hush", r"https://host/x#\.\.\.: a query or fragment"),
        ("https://host:80?sig=hush@hush", r"https://\.\.\.: a user name, password or token"),
        ("abfs://container@account/x?hush", r"abfs://container@account/x\?\.\.\.: a query or fragment"),
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url: str, words: str):
    def fetch() -> None:
        with fetched(url):
            pass

    def deliver() -> None:
        with delivered(url):
            pass

    for use in (lambda: open_storage(url), lambda: refuse_taken(url), fetch, deliver):
        with pytest.raises(StorageError, match=words) as caught:
            use()
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "abfs://container@account.dfs.core.windows.net/x",
        "abfss://container@account/a:b@c",
        "s3://bucket/a@b/c:d@e",
        "sftp://host:22/a@b",
        "sftp://[::1]:22/a@b",
    ],
)
def test_containers_ports_and_signs_in_names_are_no_secrets(url: str):
    assert open_storage(url).url == url


def test_a_file_url_of_the_root_is_the_root():
    assert open_storage("file:///") == LocalFolder("file:", Path("/"))


# --- single files ---


def test_a_file_is_delivered_to_a_url_when_the_block_ends_well(bucket: str):
    def fail() -> None:
        with delivered(f"{bucket}/nets/b.tsv") as path:
            path.write_text("half")
            raise RuntimeError("power cut")

    with delivered(f"{bucket}/nets/a.tsv") as path:
        path.write_text("whole")
        assert path.name == "a.tsv"
    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert open_storage(bucket).sizes() == {"nets/a.tsv": 5}
    with fetched(f"{bucket}/nets/a.tsv") as path:
        assert (path.name, path.read_text()) == ("a.tsv", "whole")
    assert not path.exists()


def test_a_file_of_this_machine_is_itself(tmp_path: Path):
    with delivered(tmp_path / "a") as path:
        path.write_text("here")
    with fetched(str(tmp_path / "a")) as path:
        assert path == tmp_path / "a"


def test_a_name_that_is_taken_is_refused_at_a_url_as_here(bucket: str, tmp_path: Path):
    with delivered(f"{bucket}/a.tsv") as path:
        path.write_text("whole")
    (tmp_path / "a.tsv").touch()
    for where in (f"{bucket}/a.tsv", str(tmp_path / "a.tsv")):
        with pytest.raises(UserError, match=r"a\.tsv exists already; pass --overwrite"):
            refuse_taken(where)
        refuse_taken(where, overwrite=True)
    refuse_taken(f"{bucket}/b.tsv")
    refuse_taken(f"{bucket}/a")
    with pytest.raises(StorageError, match=r"c\.tsv: no such file; check the URL"), fetched(f"{bucket}/c.tsv"):
        pass


def test_an_empty_file_takes_its_name_and_a_folder_at_a_url_does_not(storage: Storage):
    for key, content in {"empty": b"", "folder/full": b"full"}.items():
        storage.write(key, content)
        with pytest.raises(UserError, match=f"{key} exists already"):
            refuse_taken(joined(storage.url, key))
    if is_remote(storage.url):
        refuse_taken(joined(storage.url, "folder"))


@pytest.mark.parametrize("has_obstore", [True, False], ids=["obstore", "fsspec"])
@pytest.mark.parametrize("name", ["a.tsv", "b.tsv"], ids=["taken", "free"])
def test_only_the_one_file_is_asked_for(
    bucket: str, has_obstore: bool, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    if not has_obstore:
        monkeypatch.setattr("grndist.storage.opening.find_spec", lambda name: None)
    open_storage(bucket).write("a.tsv", b"whole")
    caplog.set_level(logging.INFO, "werkzeug")  # where the server says what it is asked
    refuse_taken(f"{bucket}/{name}", overwrite=True)
    asked = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert len(asked) == 1
    assert f"GET /{bucket.removeprefix('s3://')}/{name} HTTP" in asked[0]


def test_a_missing_bucket_is_noticed_before_long_work(s3_environment: str):
    for overwrite in (True, False):
        with pytest.raises(StorageError, match="there is no such bucket"):
            refuse_taken("s3://nobody-has-this/a.tsv", overwrite)


def test_a_url_without_a_bucket_is_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"s3://a\.tsv: there is no file name after the bucket"):
        refuse_taken("s3://a.tsv")
    with pytest.raises(StorageError, match="there is no file name"), delivered("s3://a.tsv") as path:
        path.write_text("lost")
    assert list(tmp_path.iterdir()) == []
