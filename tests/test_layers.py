"""The import rules of README.md#architecture, checked."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "grndist"
# Units of one inner tuple never import each other, except the foundation; each may import what stands before it.
LAYERS = [
    ("errors", "config", "seeds", "genes", "files", "progress"),
    ("networks", "objectives", "optim"),
    ("data", "plots"),
    ("models",),
    ("training",),
    ("tracking",),
    ("inference", "evaluation"),
    ("runs",),
    ("launch",),
    ("sweeps", "benchmarks"),
    ("report",),
    ("cli",),
]
ORDER = {unit: level for level, units in enumerate(LAYERS) for unit in units}
EXECUTED_BY_MLFLOW = "tracking_pyfunc"  # logged as a model's code: runs outside the package, at the top


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path):
    unit = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if unit in ("__init__", EXECUTED_BY_MLFLOW):
        return
    for line, imported in _our_imports(file):
        if imported == unit or (ORDER[unit] == 0 and ORDER[imported] == 0):
            continue
        assert ORDER[imported] < ORDER[unit], f"line {line}: {unit} may not import {imported}"


def test_every_unit_has_a_layer():
    units = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert units - {"__init__", EXECUTED_BY_MLFLOW} <= set(ORDER)


def test_nothing_imports_the_models_code():
    for file in PACKAGE.rglob("*.py"):
        assert EXECUTED_BY_MLFLOW not in {imported for _, imported in _our_imports(file)}, file


def _our_imports(file: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("grndist.")]
    return [(line, name) for line, name in found if not name.startswith("__")]
