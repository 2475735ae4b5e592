"""What many workers would reach: computation as measured, messages as a link of a stated speed would carry them.

A sum over n workers goes round a ring, as gloo and, for large messages, NCCL have it: 2 (n - 1) messages in a row, each
of an nth of the bytes. Nothing overlaps with computing, as in `training.distributed`.
"""

from typing import NamedTuple

from rich.table import Table

WORKERS = (8, 64)


class Link(NamedTuple):
    """A network: bits per second, and seconds that a message takes however short it is."""

    rate: float
    latency: float

    @property
    def name(self) -> str:
        return f"{self.rate / 1e9:g} Gb/s, {1e6 * self.latency:g} us"


LINKS = (Link(1e9, 50e-6), Link(10e9, 30e-6), Link(100e9, 10e-6))


class Training(NamedTuple):
    """What is known of a step: seconds of computing alone and of one of n workers' share, what they all send."""

    alone: float
    shares: dict[int, float]
    bytes_sent: float
    messages: float

    def strong(self, workers: int, link: Link) -> float:
        """Efficiency where the step has as many cells as before."""
        return self.alone / (workers * (self.shares[workers] + self.waiting(workers, link)))

    def weak(self, workers: int, link: Link) -> float:
        """Efficiency where each worker has as many cells as one had alone."""
        return self.alone / (self.alone + self.waiting(workers, link))

    def waiting(self, workers: int, link: Link) -> float:
        """Seconds of a step in which sums travel."""
        hops = 2 * (workers - 1)
        return hops * (self.messages * link.latency + self.bytes_sent * 8 / (workers * link.rate))


def predicted(trainings: dict[str, Training]) -> Table:
    """Efficiencies, each strong / weak."""
    table = Table(title="predicted efficiency: cells of a step kept / cells of a worker kept")
    for name in ("training", "workers", "computing, ms", *(link.name for link in LINKS)):
        table.add_column(name, justify="left" if name == "training" else "right")
    for name, training in trainings.items():
        for n in WORKERS:
            efficiencies = (f"{training.strong(n, link):.2f} / {training.weak(n, link):.2f}" for link in LINKS)
            table.add_row(name, str(n), f"{1e3 * training.shares[n]:.1f}", *efficiencies)
    return table


def figures(trainings: dict[str, Training]) -> dict[str, float]:
    """Over the second link."""
    return {
        f"{name}_{kind}_{n}_predicted": round(getattr(training, kind)(n, LINKS[1]), 3)
        for name, training in trainings.items()
        for n in WORKERS
        for kind in ("strong", "weak")
    }
