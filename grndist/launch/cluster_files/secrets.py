"""Finds secrets that are written down where others can read them. A message never repeats one."""

import re
from collections.abc import Iterator
from typing import Any

from grndist.launch.cluster_files.problems import leaves, mappings

NAME = r"(?:[A-Za-z0-9]+_)*(?:TOKEN|PASSWORD|SECRET|SECRET_ACCESS_KEY|ACCESS_KEY_ID|API_KEY)"
SECRETIVE = re.compile(r"(token|password|secret|credentials|(secret|api|access)_?key(_?id)?)$", re.IGNORECASE)
REFERENCE = re.compile(r"\s*(?:$|[$~/<])")  # nothing, a variable, a command, a path
ASSIGNED = re.compile(rf"\b({NAME})\s*(?:=|:\s)\s*[\"']?(?=[^$~/\s\"';&])", re.IGNORECASE)
OPTION = re.compile(r"(?<!\S)--(?:auth-)?token\b")
BEARER = re.compile(r"\bBearer\s+(?!\$)\S")
TRACED = re.compile(r"\bset\s+-(?:\w*x\w*|o\s+xtrace)|\b(?:ba)?sh\s+-\w*x\w*\b")

FROM_FILE = "keep the token in a file of mode 0600 and name it in RAY_AUTH_TOKEN_PATH"


def in_command(place: str, text: str) -> list[str]:
    """The problems of shell commands or other text."""
    found = [f"{name[1]} is written down; {FROM_FILE}, other secrets likewise" for name in ASSIGNED.finditer(text)]
    if OPTION.search(text):
        found.append(f"--token puts the token on a command line, which everyone on the machine can read; {FROM_FILE}")
    if BEARER.search(text):
        found.append(f"a token is written down after Bearer; {FROM_FILE}")
    if TRACED.search(text):
        found.append("set -x prints what it runs into the log, secrets too; leave it out")
    return [f"{place}: {one}" for one in found]


def in_tree(tree: Any, secret: str) -> list[str]:
    """The problems of a YAML tree; `secret` says where its secrets belong instead."""
    text = [line for place, value in leaves(tree) if isinstance(value, str) for line in in_command(place, value)]
    return [*text, *(f"{place}: a secret is written down; {secret}" for place in _written_down(tree))]


def _written_down(tree: Any, place: str = "") -> Iterator[str]:
    """Places of literal secrets: under a key that says so, or as the value of an entry with a name that says so."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if SECRETIVE.search(str(key)) and _is_literal(value):
                yield f"{place}{key}"
            elif SECRETIVE.search(str(key)) and isinstance(value, dict) and _is_literal(value.get("value")):
                yield f"{place}{key}.value"
        if SECRETIVE.search(str(tree.get("name", ""))) and _is_literal(tree.get("value")):
            yield f"{place}value"
    for key, value in _inside(tree):
        yield from _written_down(value, f"{place}{key}.")


def _inside(tree: Any) -> list[tuple[Any, Any]]:
    lists = [(key, value) for key, value in tree.items() if isinstance(value, list)] if isinstance(tree, dict) else []
    return [*mappings(tree), *lists]


def _is_literal(value: Any) -> bool:
    return isinstance(value, str) and not REFERENCE.match(value)
