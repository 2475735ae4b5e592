"""What is wrong with a file of `ray up`: what Ray itself finds, and what it lets through.

Ray's own checks are private to it (`ray.autoscaler._private.util`), so they may move between versions.
"""

import contextlib
import importlib
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grndist.config import Tree
from grndist.launch.cluster_files import secrets, versions
from grndist.launch.cluster_files.problems import ClusterFileError, at, leaves, mappings, shown, unknown, whole

HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
SECRET = "let the machines' role (instance profile, service account) or a file of mode 0600 hold it"
FROM_EVERYWHERE = re.compile(r"--dashboard-host[= ][\"']?(?:0\.0\.0\.0|::)")


def problems(tree: Tree) -> list[str]:
    """Every problem, a line each."""
    found = [*_shape(tree), *_workers(tree), *_head_type(tree), *_mounts(tree), *_versions(tree)]
    found += secrets.in_tree(tree, SECRET)
    if found:
        return [*found, *_commands(tree)]
    with _quiet():
        try:
            filled_in = _rays_own("util").prepare_config(tree)
            found = _commands(filled_in)
            _rays_own("util").validate_config(filled_in)
        except _refusals() as error:
            found.append(f"Ray refuses this file: {_first_line(error)}; docs.ray.io has all keys")
    return found


def _shape(tree: Tree) -> list[str]:
    """Unknown and missing keys and wrong types, by Ray's own schema."""
    from jsonschema import Draft7Validator

    schema = json.loads((Path(_rays_own("util").__file__).parents[1] / "ray-schema.json").read_text(encoding="utf-8"))
    is_local = at(tree, "provider", "type") == "local"  # where min_workers is allowed, but not in the schema
    rest = {key: value for key, value in tree.items() if not (is_local and key == "min_workers")}
    errors = sorted(Draft7Validator(schema).iter_errors(rest), key=lambda error: error.json_path)
    return [line for error in errors for line in _described(error)]


def _described(error: Any) -> list[str]:
    """The lines of an error of jsonschema."""
    place = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        return [unknown(f"{place}.{key}".lstrip("."), str(key), known) for key in error.instance if key not in known]
    if error.validator == "type":
        return [f"{place}: {shown(place, error.instance)} was given, and {_types(error.validator_value)} was expected"]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [f"{f'{place}.{key}'.lstrip('.')}: this key is required; cluster/ has examples" for key in missing]
    return [f"{place}: {error.message}; docs.ray.io has all keys"]


def _types(expected: str | list[str]) -> str:
    return expected if isinstance(expected, str) else " or ".join(expected)


def _workers(tree: Tree) -> list[str]:
    """The problems of numbers of workers, which Ray lets be negative."""
    types = mappings(tree.get("available_node_types"))
    least = [kind.get("min_workers") for _, kind in types]
    lines = [line for name, kind in types for line in _bounds(f"available_node_types.{name}.", kind)]
    if at(tree, "provider", "type") == "local" and "min_workers" in tree:
        lines += _own_machines(tree["min_workers"], at(tree, "provider", "worker_ips"))
        least.append(tree["min_workers"])
    return [*lines, *_sum(tree.get("max_workers"), least)]


def _own_machines(least: Any, addresses: Any) -> list[str]:
    """The problems of the min_workers of machines that are there already."""
    if not whole(least) or least < 0:
        return [f"min_workers: {shown('', least)} was given; give 0 or more"]
    if not isinstance(addresses, list) or least <= len(addresses):
        return []
    return [f"min_workers: {least}, but provider.worker_ips has {len(addresses)}; lower it or name more machines"]


def _sum(most: Any, least: list[Any]) -> list[str]:
    together = sum(max(number, 0) for number in least if whole(number))
    if not whole(most) or together <= most:
        return []
    return [f"max_workers: {most} is less than the {together} of all min_workers together; raise it to {together}"]


def _bounds(place: str, kind: dict[Any, Any]) -> list[str]:
    lines = [
        f"{place}{key}: {kind[key]} is negative; give 0 or more"
        for key in ("min_workers", "max_workers")
        if whole(kind.get(key)) and kind[key] < 0
    ]
    if not lines and whole(kind.get("min_workers")) and whole(kind.get("max_workers")):
        least, most = kind["min_workers"], kind["max_workers"]
        lines += [f"{place}min_workers: {least} is more than its max_workers, {most}; lower it"] if least > most else []
    return lines


def _head_type(tree: Tree) -> list[str]:
    types, head = tree.get("available_node_types"), tree.get("head_node_type")
    if not isinstance(types, dict) or (isinstance(head, str) and head in types):
        return []
    what = "missing" if head is None else f"{shown('', head)} does not exist"
    return [f"head_node_type: {what}; available_node_types has {', '.join(map(str, types))}"]


def _mounts(tree: Tree) -> list[str]:
    """The problems of file_mounts, whose inside Ray's schema leaves out."""
    mounts = tree.get("file_mounts")
    pairs = mounts.items() if isinstance(mounts, dict) else ()
    return [
        f"file_mounts.{there}: {shown('', here)} was given, and a path on this machine was expected"
        for there, here in pairs
        if not isinstance(here, str)
    ]


def _versions(tree: Tree) -> list[str]:
    """The problems of images and installations of another Ray."""
    lines = []
    for place, value in leaves(tree):
        if place.startswith("docker.") or ".docker." in place:
            lines += versions.in_image(place, value) if place.endswith("image") else []
        elif "setup_commands" in place and isinstance(value, str):
            lines += versions.in_command(place, value)
    return lines


def _commands(tree: Tree) -> list[str]:
    """The problems of the commands that start Ray; of Ray's own ones, where the file has none."""
    return [
        *_starts(HEAD, tree.get(HEAD), "ray start --head"),
        *_starts(WORKER, tree.get(WORKER), "ray start --address"),
    ]


def _starts(key: str, commands: Any, example: str) -> list[str]:
    if not isinstance(commands, list):
        return []
    starts = [
        (n, text) for n, text in enumerate(commands) if isinstance(text, str) and re.search(r"\bray\s+start\b", text)
    ]
    if not starts:
        return [f"{key}: no command starts Ray; `{example} ...` was expected"]
    return [line for n, text in starts for line in _start(f"{key}.{n}", text, is_head=key == HEAD)]


def _start(place: str, command: str, is_head: bool) -> list[str]:
    lines = []
    if not re.search(r"\bRAY_AUTH_MODE=[\"']?token\b", command):
        lines.append(f"{place}: Ray starts without authentication; put `export RAY_AUTH_MODE=token;` in this command")
    if FROM_EVERYWHERE.search(command):
        lines.append(
            f"{place}: the dashboard listens to every network; give --dashboard-host=127.0.0.1 and reach it with "
            "`ray dashboard FILE`"
        )
    if is_head and "--autoscaling-config" not in command:
        lines.append(
            f"{place}: without --autoscaling-config no worker is ever started; add "
            "--autoscaling-config=~/ray_bootstrap_config.yaml"
        )
    return lines


def _rays_own(name: str) -> Any:
    try:
        return importlib.import_module(f"ray.autoscaler._private.{name}")
    except ImportError as error:
        raise ClusterFileError(
            f"the checks of `ray up` are Ray's own, and cannot be imported ({error}); install the Ray that grndist "
            "was tested with: pip install --constraint requirements.lock 'grndist[cluster]'"
        ) from None


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions by which Ray refuses a file."""
    from click import ClickException
    from jsonschema import ValidationError

    return (ClickException, ValidationError, ValueError, RuntimeError, NotImplementedError, AssertionError, LookupError)


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "message", error)) or type(error).__name__).splitlines()[0].rstrip(". ")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Ray prints about a file off the terminal: it is said once, by the problems."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
