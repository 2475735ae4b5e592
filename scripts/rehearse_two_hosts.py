"""How far the networks of two runs are apart: `rehearse_two_hosts.py RUN RUN TOLERANCE`; exit status 1 if too far."""

import sys
from pathlib import Path

from grndist.inference import edges_of_checkpoint
from grndist.training import checkpoint


def apart(runs: list[Path]) -> float:
    """The largest difference of the weights of their edges, relative to the largest weight."""
    ends = [checkpoint.latest(run / "checkpoints") for run in runs]
    one, other = (edges_of_checkpoint(end).table.set_index(["regulator", "target"])["weight"] for end in ends)
    if set(one.index) != set(other.index):
        return float("inf")
    return float((one - other).abs().max() / one.abs().max())


if __name__ == "__main__":
    difference, tolerance = apart([Path(run) for run in sys.argv[1:3]]), float(sys.argv[3])
    print(f"edges differ by {difference:.1e} of the largest weight at most, allowed {tolerance:g}")
    sys.exit(difference > tolerance)
