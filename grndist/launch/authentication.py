"""Whether processes started here show a token to Ray clusters, and where they have it from. It is never shown."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from grndist.launch.checks import Check, ok, problem, skipped

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
MAKE = "make one on the head with `ray get-auth-token --generate` and bring that file to every machine, mode 0600"


def is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether tokens are asked for explicitly; Ray's own answer, where nothing is said, depends on who starts what."""
    return environment.get(MODE, "").lower() == "token"


def checked(environment: Mapping[str, str] = os.environ, home: Path | None = None, cluster: bool = True) -> list[Check]:
    """The mode and, where tokens are on, the token; without a `cluster` nothing is a problem."""
    mode = environment.get(MODE, "")
    if mode.lower() == "token":
        return [ok("authentication", f"{MODE}=token"), _token(environment, home or Path.home())]
    if not cluster:
        return [skipped("authentication", f"{MODE}={mode or '(not set)'}, and no cluster was asked for")]
    why = (
        f"{MODE}={mode}: whoever reaches the cluster's ports may run any code there"
        if mode
        else f"{MODE} is not set: whether the cluster asks for a token depends on how each of its processes was started"
    )
    return [problem("authentication", why, f"export {MODE}=token here and on every node, and {MAKE}")]


def _token(environment: Mapping[str, str], home: Path) -> Check:
    """In Ray's order: the variable, the file that another variable names, the file in the home folder."""
    if environment.get(TOKEN):
        return ok("token", f"from {TOKEN}")
    path = Path(environment.get(TOKEN_PATH) or home / ".ray" / "auth_token")
    try:
        is_empty, mode = not path.read_text().strip(), stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return problem("token", f"{path}: {error.strerror or error}", f"{MAKE}; {TOKEN_PATH} may name another place")
    if is_empty:
        return problem("token", f"{path} is empty", MAKE)
    if mode & 0o077:
        return problem("token", f"{path} has mode {mode:04o}, so others can read it", f"chmod 600 {path}")
    return ok("token", f"from {path}, mode {mode:04o}")
