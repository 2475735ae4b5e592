"""The base of every config object, and the one grammar: a YAML tree and `key.path=value` overrides.

Knows nothing of what is configured; `runs.RunConfig` is the sum of the parts.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from grndist.errors import UserError

Tree = dict[str, Any]


class Config(BaseModel):
    """Read-only, strict about unknown keys, and safe to send to another process."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ConfigError(UserError):
    """The configuration is wrong; the message says where and what is allowed."""


AnyConfig = TypeVar("AnyConfig", bound=Config)


def read_tree(path: Path) -> Tree:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a run file (configs/ has examples)") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a directory; give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}; a mapping of settings (key: value) was expected")
    return tree


def parse_overrides(overrides: Iterable[str]) -> Tree:
    """Turn `["training.epochs=5", "model.attention=sigmoid"]` into a tree; the last one wins.

    Raises:
        ConfigError: an override has no '=' or its value is not YAML.
    """
    tree: Tree = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r} is not of the form key.path=value, e.g. training.epochs=5")
        try:
            value = _scalar(yaml.safe_load(text))
        except yaml.YAMLError:
            raise ConfigError(f"override {override!r}: the value {text!r} is not readable as YAML") from None
        tree = merge(tree, branch(key, value))
    return tree


def branch(key: str, value: Any) -> Tree:
    """The tree that has nothing but `value` at `key.path`."""
    *parents, leaf = key.split(".")
    tree: Tree = {leaf: value}
    for parent in reversed(parents):
        tree = {parent: tree}
    return tree


def _scalar(value: Any) -> Any:
    """Read 1e-4, which YAML 1.1 takes for a string, as the number it is."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    return value


def merge(*trees: Tree) -> Tree:
    """Overlay trees key by key; a later one wins, a mapping is merged, anything else replaced."""
    result: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            old = result.get(key)
            result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def validate(cls: type[AnyConfig], tree: Tree, where: str | Path) -> AnyConfig:
    """Build `cls` from `tree`; `where` is named in the message.

    Raises:
        ConfigError: one line per problem: key, what is allowed, what was given, and the nearest known key.
    """
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        lines = [_describe(problem, cls) for problem in error.errors()]
        raise ConfigError("\n".join([f"{where} is not valid:", *lines])) from None


def _describe(problem: Any, cls: type[BaseModel]) -> str:
    kinds = {str(part.model_fields["kind"].default) for _, part in _parts(cls) if "kind" in part.model_fields}
    # inside a discriminated union pydantic's location has the kind as well
    key = ".".join(str(part) for part in problem["loc"] if part not in kinds)
    if problem["type"] == "missing":
        return f"  {key}: this setting is required"
    if problem["type"] == "extra_forbidden":
        return f"  {key}: unknown key{_nearest(key, cls)} (got {problem['input']!r})"
    if isinstance(problem["input"], dict):  # settings that do not go together; the message names them
        return f"  {key + ': ' if key else ''}{problem['msg']}"
    return f"  {key}: {problem['msg']} (got {problem['input']!r})"


def _nearest(key: str, cls: type[BaseModel]) -> str:
    """A hint at the key that was meant: of the same name in another section, or spelled much like it."""
    known = [f"{prefix}{name}" for prefix, part in _parts(cls) for name in part.model_fields]
    elsewhere = [full for full in known if full.rpartition(".")[2] == key.rpartition(".")[2]]
    close = elsewhere or difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parts(cls: type[BaseModel], prefix: str = "") -> list[tuple[str, type[BaseModel]]]:
    """`cls` and every settings class below it, each with the prefix of its keys."""
    found = [(prefix, cls)]
    for name, field in cls.model_fields.items():
        for inner in _classes_in(field.annotation):
            found += _parts(inner, f"{prefix}{name}.")
    return found


def _classes_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _classes_in(inner)]
