from dataclasses import replace
from pathlib import Path

import pytest

from grndist.errors import UserError
from grndist.launch import authentication, machine_checks
from grndist.launch.checks import Check, exit_status, failed, ok, problem, rendered, skipped
from grndist.launch.doctor import doctor
from grndist.launch.node_facts import NodeFacts, Space, facts
from grndist.launch.shared import marked, refusal
from grndist.launch.tracking_check import tracking
from grndist.tracking import TrackingConfig
from tests.launch.test_submit import server

VERSIONS = {"python": "3.11.7", "grndist": "0.1.0", "torch": "2.9.0+cpu", "ray": "2.60.0", "mlflow": "3", "numba": "0"}
GIB = 2**30
GOOD = NodeFacts(
    versions=VERSIONS,
    gpus=(),
    has_driver=False,
    host="one",
    resolved="127.0.1.1",
    ip="10.0.0.1",
    interface="eth0",
    interfaces=("eth0", "lo"),
    wanted={},
    disks={"ray": Space("/tmp/ray", 50 * GIB, 100 * GIB), "runs": Space("/shared/runs", 50 * GIB, 100 * GIB)},
    shared_memory=Space("/dev/shm", GIB, GIB),
    storage="",
)


# --- lines ---


def test_a_problem_is_followed_by_its_remedy():
    assert rendered(problem("disk", "full", "free some space")).splitlines() == [
        "problem  disk            full",
        "                         -> free some space",
    ]


def test_only_problems_make_the_exit_status_2():
    assert exit_status([ok("a", ""), skipped("b", "")]) == 0
    assert exit_status([ok("a", ""), problem("b", "", "")]) == 2


def test_the_remedy_of_an_error_is_its_last_part():
    assert failed("x", UserError("a is 1; 2 was expected; set it")) == Check(
        "x", "problem", "a is 1; 2 was expected", "set it"
    )
    assert failed("x", UserError("it is gone")) == Check("x", "problem", "it is gone")


# --- the token ---


def token(folder: Path, content: str = "s3cr3t", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_a_token_that_only_its_owner_reads_is_fine_and_never_shown(tmp_path: Path):
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token(tmp_path))}
    lines = authentication.checked(environment)
    assert [line.state for line in lines] == ["ok", "ok"]
    assert "s3cr3t" not in "".join(map(rendered, lines))


@pytest.mark.parametrize(
    ("content", "mode", "words", "remedy"),
    [("x", 0o644, "mode 0644", "chmod 600"), ("\n", 0o600, "is empty", "ray get-auth-token --generate")],
)
def test_a_token_file_that_will_not_do(tmp_path: Path, content: str, mode: int, words: str, remedy: str):
    path = token(tmp_path, content, mode)
    line = authentication.checked({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)})[1]
    assert line.state == "problem"
    assert words in line.found
    assert remedy in line.remedy


def test_the_token_in_the_home_folder_is_the_last_one_asked(tmp_path: Path):
    missing = authentication.checked({"RAY_AUTH_MODE": "token"}, tmp_path)[1]
    assert missing.state == "problem"
    assert f"{tmp_path}/.ray/auth_token: No such file" in missing.found
    assert authentication.checked({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, tmp_path)[1].state == "ok"


@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_MODE": "disabled"}])
def test_no_authentication_is_a_problem_of_clusters_alone(environment: dict[str, str]):
    assert authentication.checked(environment, cluster=False)[0].state == "--"
    (line,) = authentication.checked(environment)
    assert line.state == "problem"
    assert "export RAY_AUTH_MODE=token" in line.remedy


# --- machines ---


def test_other_versions_are_named_and_builds_of_torch_are_not():
    other = {"torch": "2.9.0+cu128", "python": "3.11.2", "ray": "2.59.0"}
    (line,) = machine_checks.same_versions(GOOD, {"two": replace(GOOD, versions=VERSIONS | other)})
    assert line.state == "problem"
    assert "ray 2.59.0 (here 2.60.0)" in line.found
    assert "torch" not in line.found
    assert machine_checks.same_versions(GOOD, {"two": GOOD, "three": GOOD})[0].state == "ok"


@pytest.mark.parametrize(
    ("changes", "wanted", "state"),
    [
        ({}, False, "--"),
        ({}, True, "problem"),
        ({"has_driver": True}, False, "problem"),
        ({"has_driver": True, "gpus": ("H100",)}, True, "ok"),
    ],
)
def test_gpus(changes: dict, wanted: bool, state: str):
    assert machine_checks.gpus(replace(GOOD, **changes), wanted).state == state


@pytest.mark.parametrize(
    ("changes", "several", "state"),
    [
        ({}, True, "ok"),  # a host name that leads to the loopback does no harm, since workers are told the interface
        ({"interface": ""}, True, "problem"),
        ({"interface": ""}, False, "ok"),
        ({"ip": "127.0.0.1", "interface": "lo"}, True, "problem"),
        ({"ip": "127.0.0.1", "interface": "lo"}, False, "ok"),
        ({"wanted": {"GLOO_SOCKET_IFNAME": "eth0"}}, True, "ok"),
        ({"wanted": {"GLOO_SOCKET_IFNAME": "eth"}}, True, "problem"),
        ({"wanted": {"NCCL_SOCKET_IFNAME": "eth"}}, True, "ok"),
        ({"wanted": {"NCCL_SOCKET_IFNAME": "=eth"}}, True, "problem"),
        ({"wanted": {"NCCL_SOCKET_IFNAME": "^docker"}}, True, "ok"),
        ({"wanted": {"NCCL_SOCKET_IFNAME": "ib"}}, False, "problem"),
    ],
)
def test_the_network(changes: dict, several: bool, state: str):
    assert machine_checks.network(replace(GOOD, **changes), several).state == state


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disks": GOOD.disks | {"runs": Space("/shared/runs", GIB // 2, GIB)}}, "runs="),
        ({"disks": {"ray": Space("/tmp/ray", 4 * GIB, 100 * GIB)}}, "95 %"),
        ({"shared_memory": Space("/dev/shm", 2**26, 2**26)}, "--shm-size"),
    ],
)
def test_disks_that_are_too_full_or_too_small(changes: dict, words: str):
    assert machine_checks.disk(GOOD).state == "ok"
    line = machine_checks.disk(replace(GOOD, **changes))
    assert line.state == "problem"
    assert words in line.remedy


def test_of_several_machines_only_those_with_a_problem_are_shown():
    bad = replace(GOOD, storage="it does not see it")
    lines = machine_checks.everywhere(
        "storage", lambda node: machine_checks.storage(node, "/runs"), {"a": GOOD, "b": bad, "c": bad}
    )
    assert [line.found.partition(":")[0] for line in lines] == ["b", "c"]
    (line,) = machine_checks.everywhere("disk", machine_checks.disk, {"a": GOOD, "b": GOOD})
    assert line.found.endswith("on all 2 machines")


def test_this_machine_says_what_it_has(tmp_path: Path):
    here = facts(str(tmp_path / "runs"))
    assert here.versions["grndist"]
    assert here.interface in here.interfaces
    assert here.storage == ""
    assert list((tmp_path / "runs").iterdir()) == []


# --- storage ---


def test_storage_that_cannot_be_written_to_says_why(tmp_path: Path):
    (tmp_path / "file").touch()
    assert "file" in refusal(str(tmp_path / "file"))
    with marked(str(tmp_path / "file")) as mark:
        assert mark == ""


def test_a_folder_of_the_same_name_on_another_machine_is_noticed(tmp_path: Path):
    with marked(str(tmp_path / "shared")) as mark:
        assert refusal(str(tmp_path / "shared"), mark) == ""
        assert "not the same storage" in refusal(str(tmp_path / "own"), mark)
    assert list((tmp_path / "shared").iterdir()) == []


# --- tracking ---


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (401, "problem"), (403, "problem"), (404, "problem")])
def test_a_tracking_server_is_asked(status: int, state: str):
    with server(lambda method, path: (status if path == "/health" else 500, "OK")) as address:
        assert tracking(TrackingConfig(uri=address), "/runs").state == state


def test_a_tracking_server_that_is_gone():
    line = tracking(TrackingConfig(uri="http://127.0.0.1:9"), "/runs")
    assert line.state == "problem"
    assert "Connection refused" in line.found


def test_databases(tmp_path: Path):
    assert tracking(TrackingConfig(), str(tmp_path)).state == "ok"
    (tmp_path / "mlflow.db").write_text("no database " * 99)
    assert tracking(TrackingConfig(), str(tmp_path)).state == "problem"
    assert tracking(TrackingConfig(uri="postgresql://127.0.0.1:9/runs"), str(tmp_path)).state == "problem"
    assert tracking(TrackingConfig(kind="none"), str(tmp_path)).state == "--"


# --- all of it ---


def test_without_a_cluster_and_a_run_file_there_is_still_much_to_look_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lines = doctor(None, "http://127.0.0.1:9")
    by_name = {line.what: line for line in lines}
    assert by_name.keys() >= {"versions", "authentication", "cluster", "GPUs", "network", "storage", "disk"}
    assert by_name["cluster"].state == "problem"
    assert "nobody answers there" in by_name["cluster"].found
