"""What the files in cluster/ would run, as far as it can be run without a cluster."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml

from grndist import cli

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(CLUSTER.iterdir())
AWS, GCP, ONPREM = (CLUSTER / f"ray-{kind}.yaml" for kind in ("aws", "gcp", "onprem"))
RAY_UP = [AWS, GCP, ONPREM]
RAYJOB, SBATCH = CLUSTER / "kuberay-rayjob.yaml", CLUSTER / "slurm.sbatch"


def programs(folder: Path, **bodies: str) -> None:
    """Programs of these names, which note what they are called with or do what is given."""
    folder.mkdir(parents=True)
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)


def command_lines(file: Path) -> list[str]:
    """Every `grndist ...` in a file, its comments too, with a number for Slurm's variables."""
    text = file.read_text().replace("\\\n", " ").replace("$@", "RUN.yaml")
    text = re.sub(r'"\$SLURM_\w+"', "4", text)
    found = re.findall(r"(?:^|[ /])grndist ((?:cluster|train|submit|--version)\b[^\n#]*)", text, re.MULTILINE)
    return [re.split(r"\s{2,}", line.strip())[0] for line in found]


def parse(group: click.Command, words: list[str], name: str = "grndist") -> None:
    """Parse a command line by the program's own options, and run nothing."""
    context = group.make_context(name, list(words), resilient_parsing=False)
    if isinstance(group, click.Group):
        _, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        parse(command, rest, f"{name} {command.name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_commands_in_a_file_are_those_of_grndist(file: Path):
    lines = command_lines(file)
    assert f"cluster check cluster/{file.name}" in lines
    assert any(line.startswith("submit RUN.yaml" if file in RAY_UP else "train ") for line in lines)
    for line in lines:
        if line != "--version":
            parse(typer.main.get_command(cli.app), shlex.split(line))


def test_the_job_is_a_run_of_grndist():
    assert yaml.safe_load(RAYJOB.read_text())["spec"]["entrypoint"].startswith("grndist train ")
    assert re.search(r"-- \\\n\s+grndist train ", SBATCH.read_text())


def worker_start(file: Path) -> str:
    return yaml.safe_load(file.read_text())["worker_start_ray_commands"][1].removesuffix("&")


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock on this machine")
def test_workers_start_ray_again_and_once_only(tmp_path: Path):
    """With a `ray` that notes how it was called and ends, and a `sleep` that does not wait."""
    programs(tmp_path / "grndist" / "bin", ray='echo "$RAY_AUTH_MODE $@" >> $HOME/calls', sleep="true")
    start = ["bash", "-c", worker_start(AWS)]
    shell = {"HOME": str(tmp_path), "RAY_HEAD_IP": "192.0.2.10", "PATH": "/usr/bin:/bin"}
    expected = ["token start --address=192.0.2.10:6379 --block"] * 100

    subprocess.run(start, env=shell, check=True)
    assert (tmp_path / "calls").read_text().splitlines() == expected
    assert subprocess.run(["flock", tmp_path / "ray_worker.lock", *start], env=shell, check=False).returncode == 1
    assert (tmp_path / "calls").read_text().splitlines() == expected


def test_all_kinds_of_machines_start_workers_alike():
    assert worker_start(AWS) == worker_start(GCP) == worker_start(ONPREM)


def test_the_sbatch_script_starts_one_ray_on_each_node_and_trains_on_all(tmp_path: Path):
    """With an `srun` that runs its command once and a `ray` that notes how it was called."""
    programs(
        tmp_path / "grndist" / "bin",
        srun='while [[ $1 == -* ]]; do shift; done; exec "$@"',
        ray='printf "%s\\n" "$RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH" "$@" > $HOME/calls',
        hostname='echo "192.0.2.7 10.0.0.7"',
    )
    (tmp_path / "grndist" / "bin" / "activate").write_text('PATH="$HOME/grndist/bin:$PATH"\n')
    slurm = {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_ON_NODE": "16", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    subprocess.run(["bash", SBATCH, "my run.yaml", "--resume"], env=slurm, check=True)
    first, *words = (tmp_path / "calls").read_text().splitlines()
    assert first == f"token {tmp_path}/.ray/auth_token"
    ray, train = words[: words.index("--")], words[words.index("--") + 1 :]
    assert ray == ["symmetric-run", "--address", "192.0.2.7:6379", "--min-nodes", "4", "--num-cpus=16"]
    assert train[:3] == ["grndist", "train", "my run.yaml"]
    assert train[3:] == ["--resume", "--workers", "4", "workers.cpus_per_worker=16"]

    without = subprocess.run(["bash", SBATCH], env=slurm, check=False, capture_output=True, text=True)
    assert without.returncode != 0
    assert "give a run file" in without.stderr
