"""Checkpoints: a directory with weights and optimiser state (safetensors) and a JSON that describes both.

    step-00000120/weights.safetensors, optimizer.safetensors, checkpoint.json

No pickle. Written aside and renamed, so a checkpoint is whole or not there; at a URL checkpoint.json comes last.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from grndist.errors import UserError
from grndist.files import WriteError, remove, written_aside
from grndist.genes import some
from grndist.storage import Storage, joined
from grndist.training.loop import Look, State

FORMAT_VERSION = 1
KEPT = 2
FILES = ("weights.safetensors", "optimizer.safetensors", "checkpoint.json")
NETWORK_FILES = ("weights.safetensors", "checkpoint.json")  # without what only training needs


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to other data."""


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself."""

    step: int
    config: dict[str, Any]  # the resolved run
    genes: list[str]  # the panel, in column order
    store_digest: str
    regulators: list[str] | None = None  # genes that may regulate; None: every gene
    unmeasured: list[str] | None = None  # perturbed genes outside the panel: rows of the network after the panel's
    looks: Sequence[Look] = ()  # every validation so far
    format_version: int = FORMAT_VERSION


def save(folder: Path, state: State, description: Description) -> Path:
    """Write the checkpoint of `state.step` below `folder`, keep the last two, return its path."""
    path = folder / f"step-{state.step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    tensors, scalars = _flatten(state.optimizers.state_dict())
    try:
        with written_aside(path, overwrite=True) as aside:
            aside.mkdir()
            _write(aside / "weights.safetensors", state.model.state_dict())
            _write(aside / "optimizer.safetensors", tensors)
            about = asdict(description) | {"optimizer": scalars}
            (aside / "checkpoint.json").write_text(json.dumps(about, indent=1))
    except WriteError as error:
        raise WriteError(path, error.reason, "free some space and --resume") from error
    for old in checkpoints(folder)[:-KEPT]:
        remove(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints below `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "checkpoint.json").is_file())


def whole(keys: Iterable[str]) -> list[str]:
    """Names of the whole checkpoints among files listed as `.../NAME/FILE`, oldest first."""
    return sorted(key.split("/")[-2] for key in keys if key.endswith("/checkpoint.json"))


def fetch_latest(storage: Storage, key: str, folder: Path, files: Sequence[str] = FILES) -> Path:
    """Copy `files` of the newest whole checkpoint below `key` to below `folder`, return its path.

    Raises:
        CheckpointError: there is none, or it is deleted while it is fetched.
    """
    place = joined(storage.url, key)
    found = whole(storage.sizes(key))
    if not found:
        raise CheckpointError(f"{place}: no checkpoint here yet; train the run first")
    path = folder / found[-1]
    path.mkdir(parents=True)
    for name in files:
        try:
            (path / name).write_bytes(storage.read(f"{key}/{path.name}/{name}"))
        except FileNotFoundError:
            raise CheckpointError(f"{place}/{path.name} has no {name}; delete it and use the one before") from None
    return path


def latest(folder: Path) -> Path:
    """The newest checkpoint below `folder`.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint here yet; train the run first")
    return found[-1]


def describe(path: Path) -> Description:
    """Read what a checkpoint says of itself.

    Raises:
        CheckpointError: it is damaged, or of an unknown format version.
    """
    try:
        about = json.loads((path / "checkpoint.json").read_text())
        about.pop("optimizer", None)
        version = about.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: checkpoint format version {version}, but this grndist reads version {FORMAT_VERSION}; "
                "train again"
            )
        looks = tuple(Look(*look) for look in about.pop("looks", ()))
        return Description(**about, looks=looks)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint ({error}); delete it and --resume from the one before"
        ) from error


def check_panel(path: Path, description: Description, genes: Sequence[str]) -> None:
    """Raise unless the checkpoint was trained on exactly these genes in this order."""
    if list(genes) == description.genes:
        return
    known, given = set(description.genes), set(genes)
    raise CheckpointError(
        f"{path} belongs to another gene panel: it has {len(known)} genes, the store {len(given)}; "
        f"only in the checkpoint: {some(sorted(known - given)) or 'none'}; only in the store: "
        f"{some(sorted(given - known)) or 'none'}{'' if known != given else ' (the order differs)'}; "
        "train anew on this store, or give the store it was trained on"
    )


def load_weights(path: Path) -> dict[str, Tensor]:
    """The model's state dict.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return _load(path / "weights.safetensors")


def restore(path: Path, state: State) -> None:
    """Bring `state` to where the checkpoint was saved, bit for bit."""
    state.model.load_state_dict(load_weights(path))
    scalars = json.loads((path / "checkpoint.json").read_text())["optimizer"]
    state.optimizers.load_state_dict(_unflatten(_load(path / "optimizer.safetensors"), scalars))
    about = describe(path)
    state.step, state.looks = about.step, list(about.looks)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}); delete {file.parent} and --resume from the one before"
        ) from error


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors straight from their memory: what is trained may fill most of it."""
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    except SafetensorError as error:
        raise WriteError(file, str(error)) from error
    file.chmod(mode)  # save_file's is its owner's alone


def _flatten(states: dict[str, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split optimiser states into tensors, named group/parameter/key, and everything else."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for group, state in states.items():
        numbers: dict[str, dict[str, Any]] = {}
        for index, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{group}/{index}/{key}"] = value
                else:
                    numbers.setdefault(str(index), {})[key] = value
        scalars[group] = {"param_groups": state["param_groups"], "numbers": numbers}
    return tensors, scalars


def _unflatten(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = {
        group: {
            "param_groups": rest["param_groups"],
            "state": {int(index): dict(values) for index, values in rest["numbers"].items()},
        }
        for group, rest in scalars.items()
    }
    for name, value in tensors.items():
        group, index, key = name.split("/")
        states[group]["state"].setdefault(int(index), {})[key] = value
    return states
