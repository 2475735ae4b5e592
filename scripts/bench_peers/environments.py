"""Environments of the peers: made once with plain pip, constrained to the PyTorch that this project is tested with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
VERSION = "import sys; print(*sys.version_info[:2])"


def environment(folder: Path, requirements: tuple[str, ...], at_least: tuple[int, int]) -> tuple[Path | None, str]:
    """The interpreter of an environment with `requirements`, and a word on it; no interpreter if there can be none."""
    found = interpreter(at_least)
    if found is None:
        return None, f"left out: needs Python {at_least[0]}.{at_least[1]} or later, and none was found"
    ready, python = folder / "ready", folder / "bin" / "python"
    wanted = "\n".join((found, *requirements))
    if not (ready.exists() and ready.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([found, "-m", "venv", str(folder)], check=True)
        constraint = folder / "constraint.txt"
        constraint.write_text("".join(line for line in lines(LOCK) if line.startswith("torch==")))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraint), *requirements]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no message"]
            return None, f"left out: pip could not install it ({errors[-1]})"
        ready.write_text(wanted)
    return python, f"{version(python, requirements[0])}, Python {python_version(str(python))}"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def interpreter(at_least: tuple[int, int]) -> str | None:
    """This one if it is new enough, otherwise the first on the PATH, or among pyenv's, that is and that runs."""
    if sys.version_info[:2] >= at_least:
        return getattr(sys, "_base_executable", sys.executable)
    names = [f"python{at_least[0]}.{minor}" for minor in range(at_least[1], at_least[1] + 4)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [shutil.which(name) for name in names] + [str(path) for n in names for path in pyenv.glob(f"*/bin/{n}")]
    return next((path for path in found if path is not None and python_version(path)), None)


def python_version(path: str) -> str:
    """3.12, or nothing if it does not run."""
    asked = subprocess.run([path, "-c", VERSION], capture_output=True, text=True, check=False)
    return asked.stdout.strip().replace(" ", ".") if asked.returncode == 0 else ""


def version(python: Path, requirement: str) -> str:
    name = requirement.partition("[")[0].partition(">")[0]
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    return f"{name} {subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip()}"
