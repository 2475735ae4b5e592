"""A table of scores as files."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from grndist.files import written_aside


@dataclass(frozen=True)
class ScoreTable(ABC):
    """A table, and what it is of."""

    table: pd.DataFrame

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """What the table is of, as JSON has it."""

    @abstractmethod
    def flat(self, network: str) -> dict[str, float]:
        """Every measure of one network by a name that tells all of it; what a tracker keeps."""

    @abstractmethod
    def render(self, width: int = 120) -> str:
        """The table as text for a terminal of `width` columns."""

    def to_json(self) -> str:
        """Everything, with numbers in full precision; what does not apply is null."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict(orient="records")
        return json.dumps({**self.about(), "scores": rows}, indent=2, allow_nan=False) + "\n"

    def write_json(self, path: Path, overwrite: bool = False) -> None:
        """Write `to_json` to `path`, whole or not at all."""
        with written_aside(path, overwrite) as aside:
            aside.write_text(self.to_json(), encoding="utf-8")

    def write_parquet(self, path: Path, overwrite: bool = False) -> None:
        """Write the table to `path`, whole or not at all."""
        with written_aside(path, overwrite) as aside:
            self.table.to_parquet(aside, index=False)
