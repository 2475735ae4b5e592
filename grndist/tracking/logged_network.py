"""What MLflow runs to load a logged network: the prediction of the model is its edge list.

MLflow copies this file into every model and executes it from there (models-from-code), so nothing is pickled. It needs
only what `model_files.REQUIREMENTS` names; grndist and torch need not be installed. Nothing imports it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException

COLUMNS = ["regulator", "target", "weight"]


class LoggedNetwork(mlflow.pyfunc.PythonModel):
    """`model.predict(None, params={"k": 1000})` returns the 1000 strongest edges: regulator, target, weight.

    `params` may also have `regulators` and `targets`, lists of names; an empty list is every one.
    """

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Read the edges that the model holds; without any it can still be loaded."""
        self.about: dict[str, Any] = json.loads(Path(context.artifacts["about"]).read_text(encoding="utf-8"))
        edges = context.artifacts.get("edges")
        self.edges = None if edges is None else pq.read_table(edges, columns=COLUMNS).to_pandas()

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return the `k` strongest of the edges that are wanted, or all of them if there are fewer, best first.

        Ties are in order of regulator, then target. A pair of an undirected network is wanted if it is either way
        round.

        Raises:
            MlflowException: `k` is not positive, a name is unknown, there is an input, or the model does not hold as
                many edges as would be needed.
        """
        asked: dict[str, Any] = {"k": 1000, "regulators": [], "targets": []} | (params or {})
        if isinstance(model_input, pd.DataFrame) and len(model_input.columns):
            raise _wrong(
                f"this model takes no input (got the columns {list(model_input.columns)}); say what is wanted by "
                'params, e.g. model.predict(None, params={"k": 1000})'
            )
        k, edges = int(asked["k"]), self._held()
        if k < 1:
            raise _wrong(f"k is {k}; give the number of edges, at least 1, e.g. k = 1000")
        wanted = self._wanted(edges, _names(asked["regulators"]), _names(asked["targets"]))
        if len(wanted) < k and not self.about["complete"]:
            raise _wrong(
                f"{k:,} edges are asked for, but this model holds the {len(edges):,} strongest of its network, and "
                f"{len(wanted):,} of them are such; ask for fewer, or compute more from its checkpoint: grndist models "
                f"pull NAME -o DIR, then grndist infer DIR -k {k} -o edges.parquet"
            )
        return wanted.head(k).reset_index(drop=True)

    def _held(self) -> pd.DataFrame:
        if self.edges is None:
            raise _wrong(
                "this model was logged without its edges, since the network is large; `grndist models register` adds "
                "them, or compute them from its checkpoint: grndist models pull NAME -o DIR, then grndist infer DIR"
            )
        return self.edges

    def _wanted(self, edges: pd.DataFrame, regulators: Sequence[str], targets: Sequence[str]) -> pd.DataFrame:
        if not (regulators or targets):
            return edges
        self._refuse_unknown(edges, [*regulators, *targets])
        fits = _among(edges["regulator"], regulators) & _among(edges["target"], targets)
        if self.about["directed"]:
            return edges[fits]
        turned = _among(edges["target"], regulators) & _among(edges["regulator"], targets) & ~fits
        other_way = edges[turned].rename(columns={"regulator": "target", "target": "regulator"})[COLUMNS]
        return _sorted(pd.concat([edges[fits], other_way]))

    def _refuse_unknown(self, edges: pd.DataFrame, names: Sequence[str]) -> None:
        known = {*self.about["genes"], *edges["regulator"].unique()}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise _wrong(
                f"{unknown[0]!r} is neither one of the network's {len(self.about['genes']):,} genes nor a regulator "
                f"outside them ({len(unknown)} of {len(names)} names are not); correct or delete them"
            )


def _names(given: Any) -> list[str]:
    return [str(name) for name in np.asarray(given, dtype=object).ravel()]


def _among(column: pd.Series, names: Sequence[str]) -> np.ndarray:
    return column.isin(names).to_numpy() if names else np.ones(len(column), dtype=bool)


def _sorted(edges: pd.DataFrame) -> pd.DataFrame:
    strength = -edges["weight"].abs()
    return edges.assign(strength=strength).sort_values(["strength", "regulator", "target"], kind="stable")[COLUMNS]


def _wrong(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


mlflow.models.set_model(LoggedNetwork())
