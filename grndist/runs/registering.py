"""Give the network of a run a name in the registry: the model that was logged of it, or one that is logged now."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from grndist.config import validate
from grndist.inference import OpenedRun, opened_run
from grndist.runs.logged import files_of, strongest
from grndist.storage import is_remote, open_storage
from grndist.tracking import TrackingConfig
from grndist.tracking.registry import Registry, Version, is_registered, refuse_no_name
from grndist.tracking.stores import OPTION, RegistryError, connected, default_root, store_uri
from grndist.tracking.writing import Origin, found_logged, log_network


@dataclass(frozen=True)
class Registered:
    """What came of registering a run."""

    registry: Registry
    version: Version
    lines: list[str]  # what was done


def register_run(where: str | Path, name: str, alias: str = "", uri: str = "") -> Registered:
    """Register the newest checkpoint of a run as the next version of `name`, in the store that the run was logged to.

    A network that was logged with its edges is not uploaded again, and one that is a version of `name` already stays
    that version. What was not logged is logged first, in the run's own MLflow run if the store knows it, else in a new
    one.

    Args:
        where: a run directory, at a path or URL.
        name: of the registered network; a new one is made.
        alias: to move to this version.
        uri: a store, instead of the run's own.

    Raises:
        RegistryError: the run was never logged and no store is named, or the store does not answer or refuses.
        UserError: not a run directory, no checkpoint yet, or the network cannot be computed.
    """
    if is_registered(where):
        raise RegistryError(f"{where} is registered already; give it another alias with grndist models promote")
    refuse_no_name(name)
    with opened_run(where) as run:
        tracked, run_id = tracking_of(where)
        store = store_uri(uri) if uri else own_store(where, tracked)
        registry = Registry(store, connected(store))
        registry.refuse_alias(alias)
        origin, lines = _logged(registry, run, tracked, run_id)
        before = registry.numbers(name)
        version = registry.register(name, origin.model_id, origin.run_id, _tags(registry, run, origin))
    made = "is registered" if version.number not in before else "was registered before"
    lines.append(f"{version.address} {made} at {store}")
    if alias:
        lines.append(promoted(registry, version, alias))
        version = registry.find(version.address)
    return Registered(registry, version, lines)


def promoted(registry: Registry, version: Version, alias: str) -> str:
    """Move an alias to a version; return a line that says so."""
    before = registry.promote(version, alias)
    was = "" if before is None else f", and was at {before}" if before != version.number else ", as before"
    return f"{alias}: version {version.number} of {version.name}{was}"


def tracking_of(where: str | Path) -> tuple[TrackingConfig | None, str]:
    """How a run is tracked, and its id in MLflow; None and empty where its directory does not say."""
    try:
        about = json.loads(open_storage(where).read("tracking.json"))
    except FileNotFoundError:
        return None, ""
    return validate(TrackingConfig, about["config"], f"{where}/tracking.json"), about["run_id"]


def own_store(where: str | Path, tracked: TrackingConfig | None) -> str:
    """The store that a run is logged to.

    Raises:
        RegistryError: there is none.
    """
    root = default_root(str(where) if is_remote(where) else Path(where).absolute().parent)
    if tracked is None or tracked.kind == "none":
        reason = "it has no tracking.json" if tracked is None else "tracking.kind=none"
        raise RegistryError(
            f"{where} was never logged in MLflow ({reason}), so nothing says where to register it; name a store, in "
            f"which it is then logged, too: {OPTION} http://SERVER:5000, or {OPTION} sqlite:///{root / 'mlflow.db'}"
        )
    return tracked.uri or f"sqlite:///{root / 'mlflow.db'}"


def _logged(
    registry: Registry, run: OpenedRun, tracked: TrackingConfig | None, run_id: str
) -> tuple[Origin, list[str]]:
    """Where the network is logged with its edges, after it was where it had not been."""
    experiment = (tracked or TrackingConfig()).experiment
    if origin := found_logged(registry, run_id, experiment, run.name, run.checkpoint):
        return origin, [f"logged before: run {origin.run_id}"]
    with tempfile.TemporaryDirectory(prefix="grndist-network-") as aside:
        settings = Path(aside, "config.yaml")
        settings.write_text(yaml.safe_dump(run.settings, sort_keys=False), encoding="utf-8")
        edges = strongest(run.name, run.checkpoint)
        files = files_of(run.name, settings, run.checkpoint, Path(aside), edges)
        root = default_root(run.name if is_remote(run.name) else Path(run.name).parent)
        origin = log_network(registry, run_id, experiment, run.name, root, run.settings, files)
    how = "with its edges in its own run" if origin.run_id == run_id else "in a new run"
    return origin, [f"logged now, {how}: {origin.run_id}"]


def _tags(registry: Registry, run: OpenedRun, origin: Origin) -> dict[str, str]:
    """What a version says of itself: the run's own tags, the network's facts and, if there are any, scores."""
    about = {
        "run": run.name,
        "checkpoint": run.checkpoint.name,
        "model": run.settings["model"]["kind"],
        "store_digest": run.settings.get("store_digest", ""),
        "view_digest": run.settings.get("view_digest", ""),
    }
    scores = {f"score.{name}": value for name, value in registry.scores(origin.run_id).items()}
    return origin.tags | {f"grndist.{name}": str(value) for name, value in (about | scores).items()}
