"""What is done of a long baseline, in a folder: a file for every target, so that a killed command goes on.

A file is whole or not there, and the folder says what its settings are.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from grndist.errors import UserError
from grndist.files import locked, write_whole

SETTINGS = "settings.json"


class PartsError(UserError):
    """The folder holds something else."""


@dataclass(frozen=True)
class Parts:
    """The targets that are done."""

    folder: Path | None  # None: nothing is kept

    def done(self) -> dict[int, Float64[np.ndarray, " regulators"]]:
        """The weights of each."""
        if self.folder is None:
            return {}
        return {int(file.stem): np.load(file) for file in self.folder.glob("[0-9]*.npy")}

    def keep(self, target: int, weights: Float64[np.ndarray, " regulators"]) -> None:
        """Write one down."""
        if self.folder is not None:
            content = BytesIO()
            np.save(content, weights)
            write_whole(self.folder / f"{target}.npy", [content.getbuffer()])


@contextmanager
def opened_parts(folder: Path | None, settings: Mapping[str, str | int]) -> Iterator[Parts]:
    """The parts in a folder, which is made if it is not there, for this process alone.

    Raises:
        PartsError: they are of other settings.
        UserError: another process works there.
    """
    if folder is None:
        yield Parts(None)
        return
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", f"{folder}: another process is at work there; wait for it, or choose another output"):
        _refuse_other(folder, settings)
        write_whole(folder / SETTINGS, [json.dumps(dict(settings), indent=2).encode()])
        yield Parts(folder)


def _refuse_other(folder: Path, settings: Mapping[str, str | int]) -> None:
    file = folder / SETTINGS
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else dict(settings)
    other = [
        f"{key} was {before.get(key)!r}, now {value!r}" for key, value in settings.items() if before.get(key) != value
    ]
    if other:
        raise PartsError(
            f"{folder}: what was done there before is of other settings ({'; '.join(other)}); give the same again, "
            "choose another output, or delete the folder"
        )
