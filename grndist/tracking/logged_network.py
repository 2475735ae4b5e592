"""What MLflow runs to load a logged network: the prediction of the model is its edge list.

MLflow copies this file into every model and executes it from there (models-from-code), so nothing is pickled. Nothing
imports it: `mlflow_run` names it by path, and so it may call `inference`, which stands above `tracking`.
"""

from pathlib import Path

import mlflow
import pandas as pd

from grndist.errors import UserError


class LoggedNetwork(mlflow.pyfunc.PythonModel):
    """`model.predict(pd.DataFrame({"k": [1000]}))` returns the 1000 strongest edges: regulator, target, weight."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Remember where MLflow has put the checkpoint."""
        self.checkpoint = Path(context.artifacts["checkpoint"])

    def predict(
        self, context: mlflow.pyfunc.PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Return the `k` strongest edges, best first.

        Raises:
            UserError: the input is not one row with a positive `k`, or the network has fewer edges.
        """
        from grndist.inference import edges_of_checkpoint

        asked = model_input["k"].tolist()
        if len(asked) != 1 or asked[0] < 1:
            raise UserError(f"k is {asked}; give one row with the number of edges, at least 1, e.g. k = 1000")
        return edges_of_checkpoint(self.checkpoint, int(asked[0])).table


mlflow.models.set_model(LoggedNetwork())
