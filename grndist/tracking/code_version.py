"""Which code a run was made with."""

import subprocess
from functools import cache
from pathlib import Path

from grndist import __version__

CHECKOUT = Path(__file__).parents[2]


@cache
def code_tags() -> dict[str, str]:
    """The version of grndist and, in a git checkout of it, the commit and whether files differ from that."""
    tags = {"grndist.version": __version__}
    if not (CHECKOUT / ".git").exists():
        return tags
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changed = bool(_git("status", "--porcelain", "--untracked-files=no", "--", "grndist").strip())
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout of somebody else
        return tags
    return tags | {"grndist.commit": commit, "grndist.commit_is_dirty": str(changed).lower()}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(CHECKOUT), *arguments], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout
