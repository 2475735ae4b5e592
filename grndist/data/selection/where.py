"""Which cells an expression over the columns of their table holds for, e.g. 'n_genes > 200 and batch == "b1"'."""

import numpy as np
import pandas as pd
from jaxtyping import Bool

from grndist.errors import UserError
from grndist.genes import some

EVALUATION_ERRORS = (
    SyntaxError,
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
)


def holds(
    obs: pd.DataFrame, where: str, place: str, setting: str, error: type[UserError] = UserError
) -> Bool[np.ndarray, " cells"]:
    """Whether `where` holds for each cell; a missing value is not true.

    Args:
        obs: the table of cells.
        where: an expression as pandas evaluates it; it sees the columns and nothing else.
        place: file or store, for messages.
        setting: what the user calls the expression, e.g. "--where".
        error: what is raised.

    Raises:
        UserError: of the type `error`: an unknown column, no valid expression, or one that is not true or false.
    """
    columns = f"its columns are {some(list(obs.columns), 20) or 'none'}"
    try:
        result = obs.eval(where, engine="python", local_dict={}, global_dict={})
    except NameError as problem:  # pandas' UndefinedVariableError
        raise error(f"{place}: {setting} {where!r}: {problem}; {columns} (write text in quotes)") from None
    except EVALUATION_ERRORS as problem:
        raise error(
            f"{place}: {setting} {where!r} cannot be evaluated ({problem}); {columns}; an example: {_example(obs)}"
        ) from None
    known = result.dropna().infer_objects() if isinstance(result, pd.Series) else None
    if known is None or not pd.api.types.is_bool_dtype(known) or len(result) != len(obs):
        raise error(f"{place}: {setting} {where!r} is not true or false for each cell; compare, e.g. {_example(obs)}")
    return result.isin([True]).to_numpy()


def _example(obs: pd.DataFrame) -> str:
    """A comparison that could be meant."""
    numbers = [name for name in obs.columns if pd.api.types.is_numeric_dtype(obs[name])]
    if numbers:
        return repr(f"{numbers[0]} > 0")
    return repr(f'{obs.columns[0]} == "x"') if len(obs.columns) else "none, without columns"
