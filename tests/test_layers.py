"""The import rules of README.md#architecture, checked."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "grndist"
# Units of one inner tuple never import each other, except the foundation; each may import what stands before it.
LAYERS = [
    ("errors", "config", "seeds", "genes", "files", "storage", "progress", "machine", "parallel", "workers"),
    ("networks", "objectives", "effects", "optim"),
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
INSIDE_DATA = [
    ("sources", "simulate", "simulation_file"),
    ("store",),
    ("view",),
    ("normalise", "perturbations"),
    ("selection",),
    ("ingest", "stream"),
    ("moments",),
    ("facts",),
]
ORDER_INSIDE_DATA = {unit: level for level, units in enumerate(INSIDE_DATA) for unit in units}
EXECUTED_BY_MLFLOW = PACKAGE / "tracking" / "logged_network.py"  # a logged model's code: runs outside the package


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path):
    unit = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if unit == "__init__" or file == EXECUTED_BY_MLFLOW:
        return
    for line, name in _our_imports(file):
        imported = name.split(".")[1]
        if imported == unit or (ORDER[unit] == 0 and ORDER[imported] == 0):
            continue
        assert ORDER[imported] < ORDER[unit], f"line {line}: {unit} may not import {imported}"


@pytest.mark.parametrize("unit", ORDER_INSIDE_DATA)
def test_imports_inside_data_point_down(unit: str):
    folder = PACKAGE / "data" / unit
    for file in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        for line, name in _our_imports(file):
            imported = name.split(".")[2] if name.startswith("grndist.data.") else unit
            if imported != unit and (unit, imported) != ("simulation_file", "simulate"):
                assert ORDER_INSIDE_DATA[imported] < ORDER_INSIDE_DATA[unit], f"{file}, line {line}: {imported}"


def test_every_unit_of_data_has_a_layer():
    units = {
        path.stem for path in (PACKAGE / "data").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert units - {"__init__"} == set(ORDER_INSIDE_DATA)


def test_every_unit_has_a_layer():
    units = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert units - {"__init__"} <= set(ORDER)


def test_nothing_imports_the_models_code():
    assert EXECUTED_BY_MLFLOW.is_file()
    for file in PACKAGE.rglob("*.py"):
        for line, name in _our_imports(file):
            assert EXECUTED_BY_MLFLOW.stem not in name.split("."), f"{file}, line {line}"


def _our_imports(file: Path) -> list[tuple[int, str]]:
    """Line and dotted name, e.g. `grndist.data.stream.plan.Plan`, of each import of ours."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: relative imports escape these rules"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, name) for name in names if name.startswith("grndist.")]
    return [(line, name) for line, name in found if not name.startswith("grndist.__")]
