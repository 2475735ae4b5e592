"""The command line as a program; `grndist(...)` below runs it for other tests too."""

import contextlib
import io
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml

from grndist import cli

REPOSITORY = Path(__file__).parent.parent
CHAIN = ["simulate", "ingest", "train", "infer", "evaluate"]
COMMANDS = [
    *CHAIN, "baseline", "effects", "embeddings", "neighbours", "latent", "sweep", "causalbench", "benchmark", "doctor",
    "preflight",
    "submit", "store", "models", "cluster", "tracking",
]  # fmt: skip
HEAVY = {"torch", "mlflow", "zarr", "anndata", "scanpy", "pandas", "scipy", "sklearn", "pyarrow", "h5py", "matplotlib"}

CATRAN = {
    "model": {"kind": "catran", "embedding": 4},
    "training": {"epochs": 2, "cells_per_step": 30, "genes_per_step": 10, "checkpoint_every": 2, "log_every": 1},
    "tracking": {"kind": "none"},
    "store": "small.zarr",
}


@dataclass(frozen=True)
class Said:
    """What one call of the program printed, and its exit status."""

    status: int
    out: str
    err: str


def grndist(line: str) -> Said:
    """Run `grndist LINE` in this process, where one stands; an exception that is a bug goes through."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["grndist", *shlex.split(line)])
        try:
            cli.entry()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Said(status, out.getvalue(), err.getvalue())


def done(line: str) -> str:
    """Run `grndist LINE`, which must succeed, and return what it printed."""
    said = grndist(line)
    assert said.status == 0, said
    return said.out


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter with the package on its path, where one stands."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def small_chain(folder: Path, catran: dict = CATRAN) -> dict[str, str]:
    """Make one small artefact of each kind in `folder`, all called small, and return what the commands printed."""
    with contextlib.chdir(folder):
        Path("small.yaml").write_text(yaml.safe_dump(catran))
        return {
            "simulate": done("simulate small.h5ad --cells 90 --genes 12 --regulators 4 --seed 3"),
            "ingest": done("ingest small.h5ad small.zarr"),
            "train": done("train small.yaml"),
            "infer": done("infer runs/small --all -o small.parquet"),
            "evaluate": done("evaluate small.parquet --reference small.network.tsv -o small.json"),
        }


def commands() -> dict:
    return typer.main.get_command(cli.app).commands


# --- speed ---


def imported_by(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    result = process("-c", code)
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def help_of(arguments: str) -> str:
    return (
        f"from grndist.cli import entry\nsys.argv = ['grndist', *'{arguments}'.split()]\n"
        "try: entry()\nexcept SystemExit as end: assert not end.code"
    )


def test_importing_the_package_imports_nothing_heavy():
    imported = imported_by("import grndist")
    assert "grndist" in imported
    assert not imported & (HEAVY | {"numpy", "pydantic", "yaml", "rich", "typer"})


@pytest.mark.parametrize("arguments", ["--help", *[f"{command} --help" for command in COMMANDS]])
def test_help_imports_nothing_heavy(arguments: str):
    imported = imported_by(help_of(arguments))
    assert "typer" in imported
    assert not imported & (HEAVY | {"numpy", "yaml"})


@pytest.mark.parametrize(("statement", "limit"), [("import grndist", 0.3), (help_of("--help"), 1.0)])
def test_it_answers_at_once(statement: str, limit: float):
    def seconds(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the CPU, whatever else the machine does
        process("-c", code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(seconds("import sys") for _ in range(3))
    assert min(seconds(f"import sys\n{statement}") for _ in range(3)) - bare < limit


# --- help ---


def test_help_lists_the_commands():
    text = done("--help")
    listed = re.findall(r"^\W*(\w+)  +[A-Z]", text.partition("Commands")[2], re.MULTILINE)
    assert listed == COMMANDS == list(commands())


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS[:-4],
        *(f"store {command}" for command in ("info", "verify", "head")),
        *(f"models {command}" for command in ("register", "list", "show", "promote", "compare", "pull")),
        "cluster check",
        "tracking replay",
    ],
)
def test_every_argument_and_option_is_explained(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = done(f"{command} --help")
    group, _, inside = command.partition(" ")
    found = commands()[group].commands[inside] if inside else commands()[group]
    parameters = [parameter for parameter in found.params if parameter.name != "help"]
    assert len(parameters) >= (1 if inside else 3)
    for parameter in parameters:
        assert parameter.help, parameter.name
        assert " ".join(parameter.help.split()[:3]) in text
        name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name
        assert name in text


def test_no_command_shows_the_help():
    said = grndist("")
    assert "Commands" in said.out + said.err
    assert said.status == 2  # as a missing command is


# --- what comes next ---


def test_every_next_line_is_a_command_that_runs(tmp_path: Path):
    printed = small_chain(tmp_path)
    lines = {command: re.findall(r"^next: grndist (.*)", text, re.MULTILINE) for command, text in printed.items()}
    assert [len(lines[command]) for command in CHAIN] == [1, 1, 1, 1, 0]  # scores are the end of the chain
    for (line,) in (found for found in lines.values() if found):
        word, *rest = shlex.split(line.partition("   (")[0])
        named = {option for parameter in commands()[word].params for option in parameter.opts}
        assert {part for part in rest if part.startswith("-")} <= named
        assert [part for part in rest if not part.startswith("-")]


# --- mistakes of typing ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("inger a.h5ad a.zarr", "No such command 'inger'"),
        ("ingest a.h5ad", "Missing argument 'sources'"),
        ("evaluate", "Missing argument 'edges'"),
        ("train run.yaml --epochs 5", "No such option: --epochs"),
        ("infer runs/r -k many", "Invalid value for '-k'"),
        ("infer runs/r -k 0", "Invalid value for '-k'"),
        ("infer runs/r --threshold -1", "Invalid value for '--threshold'"),
    ],
)
def test_what_is_no_command_line_ends_with_status_2(line: str, words: str):
    said = grndist(line)
    assert (said.status, said.out) == (2, "")
    assert words in said.err
    assert "--help" in said.err


def test_the_module_runs_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = process("-m", "grndist.cli", "ingest", "nowhere.h5ad", "new.zarr")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("grndist: nowhere.h5ad: no such file")
    assert result.stderr.count("\n") == 1


# --- looking at a store ---


def test_a_store_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    small_chain(tmp_path)
    assert re.search(r"^shape +90 cells x 12 genes$", done("store info small.zarr"), re.MULTILINE)
    table = done("store head small.zarr -n 2 --genes 3").splitlines()
    assert len(table) == 3
    assert table[0].split()[:3] == ["perturbation", "total_counts", "n_genes"]
    assert "all 54 files are as they were written" in done("store verify small.zarr")


def test_verify_names_every_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    small_chain(tmp_path)
    shard = Path("small.zarr/X/data/c/0")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    Path("small.zarr/var/mean/c/0").unlink()
    said = grndist("store verify small.zarr")
    assert (said.status, said.out) == (2, "")
    assert "small.zarr: 2 of 54 files are damaged:" in said.err
    assert "X/data/c/0 is not what was written" in said.err
    assert "var/mean/c/0 is missing" in said.err
    assert "Traceback" not in said.err
