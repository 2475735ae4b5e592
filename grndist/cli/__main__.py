"""`python -m grndist.cli`."""

from grndist.cli import entry

entry()
