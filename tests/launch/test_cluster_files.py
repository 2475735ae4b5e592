import re
import socket
import sys
from pathlib import Path

import pytest
import yaml

from grndist.launch.cluster_files import ClusterFileError, check, checked
from grndist.launch.cluster_files.versions import ray_version
from tests.test_cli import grndist

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(CLUSTER.iterdir())
AWS, GCP, ONPREM = (CLUSTER / f"ray-{kind}.yaml" for kind in ("aws", "gcp", "onprem"))
RAYJOB, SBATCH = CLUSTER / "kuberay-rayjob.yaml", CLUSTER / "slurm.sbatch"
TOKEN = "0f9d3c1e-not-to-be-seen"

pytest.importorskip("ray")
pytest.importorskip("jsonschema")


def changed(file: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of a shipped file with each first occurrence replaced, which must be there."""
    text = file.read_bytes().decode()
    for old, new in changes:
        assert old in text, f"{file.name} has no {old!r}"
        text = text.replace(old, new, 1)
    copy = folder / file.name
    copy.write_bytes(text.encode())
    return copy


def only(file: Path) -> str:
    """The one problem of a file."""
    problems = check(file)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_shipped_files_are_accepted(file: Path):
    assert check(file) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_neither_a_network_nor_a_clouds_library_is_needed(file: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for module in ("boto3", "botocore", "google", "googleapiclient"):
        monkeypatch.setitem(sys.modules, module, None)
    assert check(file) == []


def test_a_line_per_file_names_its_kind():
    kinds = [re.search(r"ok \((.+)\)", line)[1] for line in checked([AWS, RAYJOB, SBATCH])]
    assert kinds == ["ray up", "KubeRay RayJob", "Slurm sbatch"]


MISTAKES = {
    # ray up
    "negative": (AWS, "min_workers: 2", "min_workers: -1", r"^available_node_types.worker.min_workers: -1 is negative"),
    "negative, own machines": (ONPREM, "min_workers: 2", "min_workers: -1", r"^min_workers: -1"),
    "no autoscaling": (
        GCP, " --autoscaling-config=~/ray_bootstrap_config.yaml", "",
        r"^head_start_ray_commands.1: without --autoscaling-config no worker",
    ),
    "too many": (AWS, "min_workers: 2", "min_workers: 5", r"min_workers: 5 is more than its max_workers, 4"),
    "mount": (AWS, "source: .", "source: 3", r"^file_mounts.~/grndist-source: 3 was given, and a path on this machine"),
    "sum": (GCP, "max_workers: 4", "max_workers: 1", r"^max_workers: 1 is less than the 2 of all min_workers together"),
    "sum, own machines": (ONPREM, "max_workers: 2", "max_workers: 1", r"^max_workers: 1 is less than the 2"),
    "more than there are": (ONPREM, ", 192.0.2.12", "", r"^min_workers: 2, but provider.worker_ips has 1"),
    "unknown key": (AWS, "max_workers: 4", "maximum_workers: 4", r"^maximum_workers: unknown key; did you mean 'max_w"),
    "unknown key of a type": (AWS, "min_workers: 2", "minimum_workers: 2", r"minimum_workers: unknown key; did you me"),
    "wrong type": (AWS, "max_workers: 4", "max_workers: four", r"^max_workers: 'four' was given, and integer was exp"),
    "wrong type inside": (GCP, "ssh_user: ubuntu", "ssh_user: [ubuntu]", r"^auth.ssh_user: a list .* string was exp"),
    "key missing": (AWS, "cluster_name: grndist\n", "", r"^cluster_name: this key is required"),
    "head type": (AWS, "head_node_type: head", "head_node_type: hd", r"^head_node_type: 'hd' does not exist; .* head,"),
    "head type missing": (AWS, "head_node_type: head\n", "", r"^head_node_type: missing; .* has head, worker"),
    "provider": (AWS, "type: aws", "type: amazon", r"^Ray refuses this file: Unsupported node provider: amazon"),
    "no head": (ONPREM, "  head_ip: 192.0.2.10", "  internal: 1", r"^Ray refuses this file: Please supply a `head_ip`"),
    "head without tokens": (AWS, " RAY_AUTH_MODE=token", "", r"^head_start_ray_commands.1: .* without authentication"),
    "dashboard": (
        AWS, "dashboard-host=127.0.0.1", "dashboard-host=0.0.0.0", r"^head_start_ray_commands.1: the dashboard listens",
    ),
    "no start": (AWS, "ray start --head", "true", r"^head_start_ray_commands: no command starts Ray"),
    "token in a command": (
        AWS, "MODE=token ", f"MODE=token RAY_AUTH_TOKEN={TOKEN} ", r"^head.*RAY_AUTH_TOKEN is wri",
    ),
    "token on a command line": (AWS, "--head --port", f"--head --token={TOKEN} --port", r"--token puts the token on"),
    "key of a cloud": (
        AWS, "region:", f"aws_credentials: {{aws_secret_access_key: {TOKEN}}}\n  region:",
        r"^provider.aws_credentials.aws_secret_access_key: a secret is written down",
    ),
    "image": (AWS, "auth:", "docker: {image: rayproject/ray:2.9.3-py311}\nauth:", r"^docker.image: .* has Ray 2.9.3"),
    "image without version": (AWS, "auth:", "docker: {image: rayproject/ray}\nauth:", r"^docker.image: .* tomorrow"),
    "ray installed": (AWS, "boto3\n", "boto3 'ray[default]==2.9.3'\n", r"^head_setup_commands.0: .* has Ray 2.9.3"),
    # KubeRay
    "misspelt": (
        RAYJOB, "shutdownAfterJobFinishes", "shutdownAfterJobFinish",
        r"^spec.shutdownAfterJobFinish: unknown key; did you mean 'shutdownAfterJobFinishes'\?",
    ),
    "misspelt deep inside": (
        RAYJOB, "claimName", "claim", r"volumes.0.persistentVolumeClaim.claim: unknown key; did you mean 'claimName'",
    ),
    "replicas": (RAYJOB, "replicas: 1", 'replicas: "two"', r"workerGroupSpecs.0.replicas: .* integer \(got 'two'\)"),
    "replicas negative": (RAYJOB, "minReplicas: 0", "minReplicas: -1", r"Specs.0.minReplicas: -1 is negative"),
    "replicas above": (RAYJOB, "replicas: 1", "replicas: 9", r"Specs.0.replicas: 9 is more than maxReplicas, 4"),
    "quantity": (RAYJOB, "memory: 8Gi", "memory: 8Gib", r"requests.memory: a number .* was expected.* \(got '8Gib'\)"),
    "number for text": (RAYJOB, 'num-cpus: "0"', "num-cpus: 0", r"rayStartParams.num-cpus: .* string \(got 0\)"),
    "two groups": (RAYJOB, "groupName: gpu", "groupName: cpu", r"workerGroupSpecs: two groups are called 'cpu'"),
    "tokens off": (RAYJOB, "mode: token", "mode: disabled", r"authOptions.mode: 'disabled'; give `mode: token`"),
    "outside": (RAYJOB, "ClusterIP", "LoadBalancer", r"headGroupSpec.serviceType: 'LoadBalancer' opens the dashboard"),
    "other image": (RAYJOB, "ray2.60.0-cpu", "ray2.59.1-cpu", r"headGroupSpec.*0.image: .* has Ray 2.59.1, and 2.60.0"),
    "other version": (RAYJOB, 'rayVersion: "2.60.0"', 'rayVersion: "2.59.1"', r"rayVersion: '2.59.1' has Ray 2.59.1"),
    "version missing": (RAYJOB, '    rayVersion: "2.60.0"\n', "", r"rayVersion: missing; give '2.60.0'"),
    "kind": (RAYJOB, "kind: RayJob", "kind: RayCluster", r"^kind: Input should be 'RayJob' \(got 'RayCluster'\)"),
    "token in env": (
        RAYJOB, "- name: ray-head", f"- name: ray-head\n              env: [{{name: RAY_AUTH_TOKEN, value: {TOKEN}}}]",
        r"headGroupSpec.template.spec.containers.0.env.0.value: a secret is written down; .*secretKeyRef",
    ),
    "token in the runtime": (
        RAYJOB, "  shutdown", f"  runtimeEnvYAML: |\n    env_vars:\n      RAY_AUTH_TOKEN: {TOKEN}\n  shutdown",
        r"^spec.runtimeEnvYAML: RAY_AUTH_TOKEN is written down",
    ),
    # Slurm
    "shared nodes": (SBATCH, "#SBATCH --exclusive\n", "", r"^#SBATCH --exclusive: missing or limited"),
    "shared with oneself": (SBATCH, "#SBATCH --exclusive\n", "#SBATCH --exclusive=user\n", r"^#SBATCH --exclusive: m"),
    "nodes unlike": (
        SBATCH, '--min-nodes "$SLURM_JOB_NUM_NODES"', "--min-nodes 3", r"line \d+: --min-nodes 3 is unlike .*--nodes=4",
    ),
    "nodes unsaid": (SBATCH, '--min-nodes "$SLURM_JOB_NUM_NODES"', "", r"line \d+: --min-nodes is missing"),
    "nodes missing": (SBATCH, "#SBATCH --nodes=4\n", "", r"^#SBATCH --nodes: missing"),
    "two a node": (SBATCH, "tasks-per-node=1", "tasks-per-node=2", r"^#SBATCH --ntasks-per-node: 2 was given"),
    "too late": (SBATCH, "set -euo", "true\n#SBATCH --time=1\nset -euo", r"^line \d+: Slurm reads no #SBATCH after"),
    "no symmetric-run": (SBATCH, "ray symmetric-run", "ray start", r"^`ray symmetric-run` occurs 0 times"),
    "no srun": (SBATCH, "srun ", "env ", r"^line \d+: srun is missing"),
    "no address": (SBATCH, '--address "$head_ip:6379"', "", r"^line \d+: --address is missing"),
    "no tokens": (SBATCH, "RAY_AUTH_MODE=token ", "", r"^RAY_AUTH_MODE: Ray starts without authentication"),
    "token exported": (SBATCH, "export RAY_AUTH_TOKEN_PATH=", f"export RAY_AUTH_TOKEN={TOKEN} X=", r"^line \d+: RAY"),
    "token as an option": (SBATCH, "symmetric-run --add", f"symmetric-run --token {TOKEN} --add", r"^line \d+: --tok"),
    "traced from the start": (SBATCH, "#!/bin/bash", "#!/bin/bash -x", r"^line 1: set -x prints"),
    "traced": (SBATCH, "set -euo", "set -euxo", r"^line \d+: set -x prints"),
    "ray stop": (SBATCH, "\nsource", "\nray stop\nsource", r"^line \d+: `ray stop` ends every Ray"),
    "shell": (SBATCH, "head_ip=$(", "head_ip=$((", r"^line \d+: .*mend the shell syntax"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(file: Path, old: str, new: str, named: str, tmp_path: Path):
    problems = "\n".join(check(changed(file, tmp_path, (old, new))))
    assert re.search(named, problems, re.MULTILINE), problems
    assert TOKEN not in problems


def test_a_single_mistake_is_named_once(tmp_path: Path):
    for file, old, new, _ in (
        MISTAKES[one] for one in ("negative", "no autoscaling", "misspelt", "replicas", "no srun")
    ):
        only(changed(file, tmp_path, (old, new)))


def test_workers_without_tokens(tmp_path: Path):
    text = AWS.read_text()
    head, workers = text.split("worker_start_ray_commands:")
    file = tmp_path / "workers.yaml"
    file.write_text(head + "worker_start_ray_commands:" + workers.replace("RAY_AUTH_MODE=token", ""))
    assert only(file).startswith("worker_start_ray_commands.1: Ray starts without authentication")


def test_rays_own_start_commands_are_looked_at_too(tmp_path: Path):
    tree = yaml.safe_load(AWS.read_text())
    del tree["head_start_ray_commands"]
    file = tmp_path / "ray.yaml"
    file.write_text(yaml.safe_dump(tree))
    problems = check(file)
    assert [re.sub(r"^\S+: ", "", line).split()[:3] for line in problems] == [
        ["Ray", "starts", "without"],
        ["the", "dashboard", "listens"],
    ]


def test_a_head_group_without_template(tmp_path: Path):
    tree = yaml.safe_load(RAYJOB.read_text())
    del tree["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert only(file).startswith("spec.rayClusterSpec.headGroupSpec.template: this field is required")


def test_a_job_without_authentication(tmp_path: Path):
    options = "    authOptions:\n      mode: token\n      secretName: grndist-ray-token\n"
    file = changed(RAYJOB, tmp_path, (options, ""))
    assert only(file).startswith("spec.rayClusterSpec.authOptions.mode: missing; give `mode: token`")


def test_cpus_and_memory_are_numbers_or_text(tmp_path: Path):
    assert check(changed(RAYJOB, tmp_path, ('cpu: "2", memory: 8Gi', "cpu: 2, memory: 8Gi"))) == []
    assert "limits.cpu" in only(changed(RAYJOB, tmp_path, ('limits: {cpu: "2"', "limits: {cpu: [2]")))


def test_nodes_may_be_said_as_a_number(tmp_path: Path):
    assert check(changed(SBATCH, tmp_path, ('--min-nodes "$SLURM_JOB_NUM_NODES"', "--min-nodes=4"))) == []


def test_every_mistake_of_every_file_is_in_one_message(tmp_path: Path):
    first = changed(AWS, tmp_path, ("min_workers: 2", "min_workers: -1"), ("ssh_user", "ssh_usr"))
    second = changed(SBATCH, tmp_path, ("#SBATCH --exclusive\n", ""))
    with pytest.raises(ClusterFileError) as refused:
        checked([first, RAYJOB, second])
    lines = str(refused.value).splitlines()
    assert [lines[0], lines[3]] == [f"{first}: 2 problems (ray up)", f"{second}: 1 problem (Slurm sbatch)"]
    assert [line.split(":")[0] for line in lines[1:3]] == [
        "  auth.ssh_usr",
        "  available_node_types.worker.min_workers",
    ]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty; a file of `ray up`"),
        (b"\n  \n", "is empty"),
        (b"a: [1", "is not readable as YAML"),
        (b"cluster_name: a\nprovider:\n\ttype: aws\n", r"is not readable as YAML(.|\n)*line 3(.|\n)*tabs never indent"),
        (b"- 1\n", "holds a list, not a mapping"),
        (b"kind: Deployment\n", "has kind: Deployment; a file of `ray up`"),
        (b"store: a.zarr\nmodel: 1\n", "has the keys store, model"),
        (b"kind: RayJob\n---\nkind: Secret\n", "holds 2 YAML documents"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_what_is_no_cluster_file(content: bytes, named: str, tmp_path: Path):
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    with pytest.raises(ClusterFileError, match=named):
        check(file)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ClusterFileError, match=r"none\.yaml: no such file"):
        check(tmp_path / "none.yaml")
    with pytest.raises(ClusterFileError, match="is a folder"):
        check(tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_line_ends_of_windows_matter_to_the_shell_alone(file: Path, tmp_path: Path):
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert [line.split(",")[0] for line in check(copy)] == ["lines end with CRLF"] * (file == SBATCH)


def test_the_version_of_ray_is_that_of_the_lock():
    lock = (CLUSTER.parent / "requirements.lock").read_text()
    assert f"\nray=={ray_version()}\n" in lock


def test_the_check_is_a_command(tmp_path: Path):
    file = changed(SBATCH, tmp_path, ("#SBATCH --exclusive\n", ""))
    said = grndist(f"cluster check {RAYJOB} {file}")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"grndist: {file}: 1 problem (Slurm sbatch)\n  #SBATCH --exclusive: missing")
    assert grndist(f"cluster check {RAYJOB}").out == f"{RAYJOB}: ok (KubeRay RayJob)\n"
