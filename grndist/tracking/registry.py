"""Registered networks: names with numbered versions, and aliases, which move from one version to another.

    models:/NAME@ALIAS    the version that an alias is at
    models:/NAME/3        a version
    models:/NAME/latest   the newest one

They stand wherever a run is accepted, and are only read.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grndist.files import refuse_existing, written_aside
from grndist.genes import some
from grndist.tracking import model_files
from grndist.tracking.fetching import fetch
from grndist.tracking.stores import RegistryError, connected, explained, refuse_missing, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEME = "models:/"
LATEST = "latest"
FORMS = f"{SCHEME}NAME@ALIAS, {SCHEME}NAME/3 or {SCHEME}NAME/{LATEST}"


@dataclass(frozen=True)
class Reference:
    """A registered network as it is written; without alias and number it is the name alone."""

    name: str
    alias: str = ""
    number: str = ""  # or latest


@dataclass(frozen=True)
class Version:
    """One version of a registered network."""

    name: str
    number: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str
    model_id: str
    source: str
    registered: datetime

    @property
    def address(self) -> str:
        """What may stand where a run is accepted."""
        return f"{SCHEME}{self.name}/{self.number}"


def is_registered(where: str | Path) -> bool:
    """Whether this names a registered network, not a path or URL."""
    return str(where).startswith(SCHEME)


def reference_of(text: str) -> Reference:
    """Read NAME, NAME@ALIAS or NAME/NUMBER, with models:/ in front or without.

    Raises:
        RegistryError: it is none of these.
    """
    found = re.fullmatch(rf"([^/:@'\"]+)(?:@([^/:@]+)|/(\d+|{LATEST}))?", text.removeprefix(SCHEME))
    if not found:
        raise RegistryError(f"{text}: a registered network was expected: {FORMS}")
    return Reference(found[1], found[2] or "", found[3] or "")


def refuse_no_name(text: str) -> None:
    """Raise unless this may be the name of a registered network.

    Raises:
        RegistryError: it has an alias or a version, or letters that MLflow has another use for (/ : @ and quotes).
    """
    if reference_of(text) != Reference(text):
        raise RegistryError(f"{text}: a name alone was expected, without models:/, alias or version")


@contextmanager
def registered_run(where: str | Path) -> Iterator[Path]:
    """A registered network as a run directory, which lasts as long as the block; it is where `store_uri` says.

    Raises:
        RegistryError: there is no such network, or no store.
    """
    registry = Registry.at(store_uri())
    with registry.opened(registry.find(str(where))) as folder:
        yield folder


def refuse_unknown(where: str | Path) -> None:
    """Raise unless this network is registered; nothing is fetched.

    Raises:
        RegistryError: it is not.
    """
    Registry.at(store_uri()).find(str(where))


@dataclass(frozen=True)
class Registry:
    """The registered networks of one store. Its methods wait, and raise RegistryError if the store does not answer."""

    uri: str
    client: "MlflowClient"

    @classmethod
    def at(cls, uri: str) -> "Registry":
        """Of the store at `uri`.

        Raises:
            RegistryError: it does not answer, or is not there.
        """
        refuse_missing(uri)
        return cls(uri, connected(uri))

    def names(self) -> list[str]:
        """Every registered name, in alphabetical order."""
        with explained(self.uri):
            return sorted(model.name for model in _pages(self.client.search_registered_models))

    def numbers(self, name: str) -> list[int]:
        """The numbers of a name's versions; none where there is no such name."""
        return [version.number for version in self.versions(name)] if name in self.names() else []

    def versions(self, name: str) -> list[Version]:
        """All versions of a name, oldest first.

        Raises:
            RegistryError: there is no such name.
        """
        with explained(self.uri):
            return sorted(self._versions(name), key=lambda version: version.number)

    def find(self, text: str) -> Version:
        """The version that is meant by what `reference_of` reads.

        Raises:
            RegistryError: there is no such name, alias or version, or only a name is given.
        """
        asked = reference_of(text)
        versions = self.versions(asked.name)
        if not versions:
            raise RegistryError(f"{asked.name} has no version yet; grndist models register RUN makes one")
        if asked.alias:
            found = [version for version in versions if asked.alias in version.aliases]
        elif asked.number:
            found = versions[-1:] if asked.number == LATEST else [v for v in versions if str(v.number) == asked.number]
        else:
            raise RegistryError(f"{text}: say which one, e.g. {versions[-1].address}; {_described(versions)}")
        if not found:
            raise RegistryError(
                f"{text}: {asked.name} has no {'alias' if asked.alias else 'version'} "
                f"{asked.alias or asked.number}; {_described(versions)}"
            )
        return found[0]

    def register(self, name: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> Version:
        """Make a logged model the next version of `name`; if it is one already, that one."""
        known = self.versions(name) if name in self.names() else []
        if same := [version for version in known if version.model_id == model_id]:
            return same[-1]
        with explained(self.uri):
            number = model_files.new_version(self.client, name, model_id, run_id, tags)
        return self.find(f"{name}/{number}")

    def refuse_alias(self, alias: str) -> None:
        """Raise unless MLflow takes this as an alias, or it is empty; call it before an upload.

        Raises:
            RegistryError: it is reserved (latest, v3), or has other letters than those, digits, - and _.
        """
        from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

        with explained(self.uri):
            if alias:
                _validate_model_alias_name(alias)
                _validate_model_alias_name_reserved(alias)

    def promote(self, version: Version, alias: str) -> int | None:
        """Move an alias to a version; return the number of the one it was at, None if it is new."""
        before = [v.number for v in self.versions(version.name) if alias in v.aliases]
        with explained(self.uri):
            self.client.set_registered_model_alias(version.name, alias, str(version.number))
        return before[0] if before else None

    def fetch(self, version: Version, folder: Path) -> None:
        """Copy a version into a new folder, as a run directory with its newest checkpoint.

        Raises:
            RegistryError: it holds no checkpoint, or its files are not to be had from here.
        """
        with explained(self.uri):
            fetch(self.client, version.model_id, version.source, f"{version.address} at {self.uri}", folder)

    def pull(self, version: Version, out: Path, overwrite: bool = False) -> None:
        """`fetch` a version to a folder that stays, which is whole or not there; only a run is replaced.

        Raises:
            UserError: there is something already, or it cannot be written.
        """
        refuse_existing(out, overwrite)
        if out.exists() and not (out / model_files.CONFIG).is_file():
            raise RegistryError(f"{out} is not a run directory, so it is not replaced; choose another name")
        with written_aside(out, overwrite) as aside:
            self.fetch(version, aside)

    @contextmanager
    def opened(self, version: Version) -> Iterator[Path]:
        """A version as a run directory, which lasts as long as the block; raises as `fetch`."""
        with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
            self.fetch(version, Path(aside, "run"))
            yield Path(aside, "run")

    def scores(self, run_id: str) -> dict[str, Any]:
        """What `grndist evaluate` has logged of a run; empty if nothing, or if there is no such run."""
        from mlflow import MlflowException

        with explained(self.uri), tempfile.TemporaryDirectory(prefix="grndist-") as aside:
            try:
                if not any(file.path == "scores.json" for file in self.client.list_artifacts(run_id)):
                    return {}
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
            return json.loads(Path(self.client.download_artifacts(run_id, "scores.json", aside)).read_text())

    def _versions(self, name: str) -> list[Version]:
        from mlflow import MlflowException

        try:
            aliases = self.client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RegistryError(
                f"no network called {name!r} is registered at {self.uri}; there are {some(self.names()) or 'none'}; "
                f"register one: grndist models register RUN --name {name}"
            ) from None
        rows = _pages(self.client.search_model_versions, f"name='{name}'")
        return [_version(row, aliases) for row in rows]


def _version(row: Any, aliases: Mapping[str, Any]) -> Version:
    """What MLflow says of a version; aliases come with the name, not with each version of a search."""
    number = int(row.version)
    mine = tuple(sorted(alias for alias, at in aliases.items() if int(at) == number))
    when = datetime.fromtimestamp(row.creation_timestamp / 1000, UTC)
    source = row.source or ""
    model_id = row.tags.get(model_files.MODEL_ID) or row.model_id or ""
    if not model_id and is_registered(source):  # of a logged model
        model_id = source.removeprefix(SCHEME)
    return Version(row.name, number, mine, row.tags, row.run_id or "", model_id, source, when)


def _described(versions: list[Version]) -> str:
    """Which versions and aliases there are, in words."""
    at = [f"{alias} at {version.number}" for version in versions for alias in version.aliases]
    numbers = [str(version.number) for version in versions]
    shown = ", ".join(numbers) if len(numbers) < 6 else f"{numbers[0]} to {numbers[-1]}"
    return f"its versions are {shown}, its aliases {', '.join(at) or 'none'}"


def _pages(search: Any, filter_string: str | None = None) -> Iterator[Any]:
    """Everything that a search finds."""
    token = None
    while True:
        page = search(filter_string=filter_string, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
