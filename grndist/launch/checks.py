"""What was looked at, how it is, and what to do about it: the lines of `grndist doctor` and `grndist preflight`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from grndist.errors import UserError

State = Literal["ok", "problem", "--"]  # --: there is nothing to look at, or it cannot be told from here


@dataclass(frozen=True)
class Check:
    """One line."""

    what: str
    state: State
    found: str
    remedy: str = ""  # of a problem


def ok(what: str, found: str) -> Check:
    """It is as it should be."""
    return Check(what, "ok", found)


def problem(what: str, found: str, remedy: str) -> Check:
    """It is not, and what to do about it."""
    return Check(what, "problem", found, remedy)


def failed(what: str, error: UserError) -> Check:
    """A problem of which an error tells; the remedy is its last part."""
    found, _, remedy = str(error).rpartition("; ")
    return problem(what, found or remedy, remedy if found else "")


def skipped(what: str, why: str) -> Check:
    """There is nothing to look at."""
    return Check(what, "--", why)


def rendered(check: Check) -> str:
    """One line, and below a problem another with its remedy; further lines of the text are indented alike."""
    margin = " " * 25
    lines = f"{check.state:<8} {check.what:<15} {check.found}".splitlines()
    remedy = [f"-> {check.remedy}"] if check.remedy else []
    return "\n".join([*lines[:1], *(f"{margin}{line.strip()}" for line in [*lines[1:], *remedy])])


def exit_status(checks: Iterable[Check]) -> int:
    """0, or 2 where there is a problem."""
    return 2 if any(check.state == "problem" for check in checks) else 0
