"""What the checks of all kinds of cluster files share: their error, and how they look things up in a YAML tree."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from grndist.errors import UserError


class ClusterFileError(UserError):
    """A cluster file would not start a cluster, or not the one that is meant."""


def at(tree: Any, *keys: str | int) -> Any:
    """The value at a path of keys and indices; None where the tree is of another shape."""
    for key in keys:
        if isinstance(key, str):
            tree = tree.get(key) if isinstance(tree, dict) else None
        else:
            tree = tree[key] if isinstance(tree, list) and key < len(tree) else None
    return tree


def mappings(tree: Any) -> list[tuple[str | int, dict[Any, Any]]]:
    """The mappings directly inside a mapping or list, each with its key or index."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(key, value) for key, value in pairs if isinstance(value, dict)]


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with its dotted place."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if pairs is None:
        yield place, tree
        return
    for key, value in pairs:
        yield from leaves(value, f"{place}.{key}" if place else str(key))


def whole(value: Any) -> bool:
    """Whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(place: str, value: Any) -> str:
    """A value as messages show it: not whole trees, and not what may be a secret."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"a {type(value).__name__}" if place.endswith((".value", "_key", "token")) else f"{value!r:.60}"


def unknown(place: str, key: str, known: Iterable[str]) -> str:
    """The problem of a key that is not among those `known`, with the one that was probably meant."""
    near = difflib.get_close_matches(key, list(known), n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "leave it out"
    return f"{place}: unknown key; {remedy}"
