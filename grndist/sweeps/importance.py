"""How much of the differences between trials each parameter explains."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from grndist.seeds import stream

Scale = Literal["linear", "log", "categorical"]

LEAST_TRIALS = 8
FOLDS, REPEATS = 4, 2
TREES = 50
SHUFFLES = 5  # of each parameter, in every fold


def importance(table: pd.DataFrame, parameters: Mapping[str, Scale], objective: str, seed: int = 0) -> pd.DataFrame:
    """Permutation importance of every parameter in a random forest of the objective; the largest first.

    The forest is fitted to three quarters of the finished trials. In the others a parameter's values are shuffled; its
    importance is half of the rise of the prediction's squared error, divided by the variance of the objective: the
    share of that variance which goes with the parameter, alone or together with others (Sobol's total effect, as far as
    the forest has learnt it). 0, or a little less by chance, means that it tells nothing; the shares may add up to more
    than 1. `sd` is the spread over 8 such divisions.

    What it is not: it is of the trials that were made, not of the model. A parameter whose range is narrow, or whose
    effect the search has already avoided (Optuna samples good regions), comes out small; two parameters that go
    together, such as a conditional one and its condition, share what they explain; and of a dozen trials little can be
    learnt, which a large `sd` shows. A trial's replicates count once, by their mean.

    Args:
        table: a row for each trial: parameters, `objective`, `status`. A missing parameter (a conditional one that does
            not apply) is a value of its own.
        parameters: columns of the table, and how their values are spaced.
        objective: the column that is explained.
        seed: of the forest and the shuffles.

    Returns:
        A table parameter, importance, sd; empty with fewer than 8 finished trials or an objective that never varies.
    """
    finished = table[(table["status"] == "finished") & np.isfinite(table[objective].to_numpy(np.float64))]
    y = finished[objective].to_numpy(np.float64)
    if len(y) < LEAST_TRIALS or not parameters or y.std() == 0:
        return pd.DataFrame({"parameter": [], "importance": [], "sd": []}).astype({"parameter": object})
    x = np.stack([encoded(finished[key], scale) for key, scale in parameters.items()], axis=1)
    rises = np.concatenate([_rises(x, y, seed, repeat) for repeat in range(REPEATS)]) / (2 * y.var())
    found = pd.DataFrame({
        "parameter": list(parameters), "importance": rises.mean(axis=0), "sd": rises.std(axis=0, ddof=1),
    })  # fmt: skip
    return found.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def encoded(values: pd.Series, scale: Scale) -> Float64[np.ndarray, " trials"]:
    """Values as numbers that trees can divide: logarithms, numbers, categories in order; what is missing is lowest."""
    missing = values.isna().to_numpy()
    if scale == "categorical":
        codes, _ = pd.factorize(values.astype(str), sort=True)
        numbers = codes.astype(np.float64)
    else:
        numbers = pd.to_numeric(values).to_numpy(np.float64)
        numbers = np.log(numbers) if scale == "log" else numbers
    known = numbers[~missing]
    lowest = known.min() - max(float(np.ptp(known)), 1.0) if len(known) else 0.0
    return np.where(missing, lowest, numbers)


def _rises(
    x: Float[np.ndarray, "trials parameters"], y: Float[np.ndarray, " trials"], seed: int, repeat: int
) -> Float64[np.ndarray, "folds parameters"]:
    """By how much the squared error rises where a parameter is shuffled, in each fold."""
    rng = stream(seed, "importance", repeat)
    rises = np.empty((FOLDS, x.shape[1]))
    folds = KFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    for fold, (fitted, held_out) in enumerate(folds.split(x)):
        forest = RandomForestRegressor(TREES, random_state=int(rng.integers(2**31))).fit(x[fitted], y[fitted])
        shuffled = [_shuffled(x[held_out], column, rng) for column in range(x.shape[1]) for _ in range(SHUFFLES)]
        predicted = forest.predict(np.concatenate([x[held_out], *shuffled])).reshape(-1, len(held_out))
        errors = np.mean((predicted - y[held_out]) ** 2, axis=1)
        rises[fold] = errors[1:].reshape(-1, SHUFFLES).mean(axis=1) - errors[0]
    return rises


def _shuffled(x: Float[np.ndarray, "trials parameters"], column: int, rng: np.random.Generator) -> np.ndarray:
    x = x.copy()
    x[:, column] = rng.permutation(x[:, column])
    return x
