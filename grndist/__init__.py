"""Gene regulatory networks from single-cell expression, Perturb-seq above all.

The command line is `grndist`; its stages are SOURCE, STORE, CHECKPOINT, EDGE LIST, SCORES.
Nothing heavy is imported here: each subpackage loads what it needs.
"""

__version__ = "0.1.0"
