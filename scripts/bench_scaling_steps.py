"""Steps of one training on one worker, on two, and what each of many would have to compute; for `bench_scaling`.

Every worker is a process of one thread that stays on one core, the one that reads its cells ahead included: what a
worker of one CPU has on a cluster. Workers are started once, and what they do takes turns.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from bench_peers.turns import memory_kib
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.runs.config import RunConfig, load_run
from grndist.runs.learning import Learning, Rank, learning, resolved
from grndist.runs.train import cells_of
from grndist.training.distributed import Group
from grndist.training.loop import State, train
from grndist.workers import ALONE, Alone

STREAMS = 16
WARM_UP = 8  # steps
FIRST_EPOCH = 30  # that is measured: GRN-VAE's sparse loss is on by then


@dataclass(frozen=True)
class Job:
    """A training whose steps are taken."""

    store: Path
    preset: str
    cells: int  # of a step
    epochs: int  # of a round


class Way(NamedTuple):
    """How the steps of a job are taken."""

    workers: int = 1
    kind: str = "real"  # "share": the first of so many workers alone, who adds nothing up; "beside": all of them, who
    # add nothing up and wait for nobody; "ddp": by PyTorch's DDP
    times: int = 1  # so many times the cells of a step


ALONE_WAY = Way()


class Round(NamedTuple):
    """What a step of one worker has cost, mean of a round; and the most memory that it has held, so far."""

    wall: float  # s
    cpu: float
    bytes_sent: float
    messages: float
    peak_mib: float


class Shares(Alone):
    """In place of the other workers: whoever asks for a sum gets what it has given."""

    def __init__(self, count: int):
        self.count = count

    def add_up(self, *values: Tensor) -> None:
        """Leave them as they are."""


@dataclass
class Counted(Group):
    """Which also counts messages."""

    messages: int = 0

    def _all_reduce(self, values: Tensor) -> None:
        self.messages += 1
        super()._all_reduce(values)


Take = Callable[[int], None]  # steps up to this one


@dataclass
class Taking:
    """A training in one process, and where it stands."""

    job: Job
    way: Way
    rank: int
    group: Counted | None
    taken: Take = field(init=False)

    def __post_init__(self) -> None:
        config, learns = learning_of(self.job, self.way, self.rank)
        self.state, self.per_epoch = learns.state, -(-cells_of(config)[0].n_cells // config.training.cells_per_step)
        self.taken = taking_ddp(learns, self.group) if self.way.kind == "ddp" else self._plain(learns)
        self.state.step = self.per_epoch * FIRST_EPOCH - WARM_UP
        self.taken(self.state.step + WARM_UP)

    def round(self) -> Round:
        """Take the steps of a round."""
        n, group = self.per_epoch * self.job.epochs, self.group
        if group is not None:
            dist.barrier()
        sent, messages = (group.bytes_sent, group.messages) if group else (0, 0)
        wall, cpu = time.perf_counter(), time.process_time()
        self.taken(self.state.step + n)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        sent, messages = (group.bytes_sent - sent, group.messages - messages) if group else (0, 0)
        return Round(wall / n, cpu / n, sent / n, messages / n, memory_kib("VmHWM") / 1024)

    def _plain(self, learns: Learning) -> Take:
        workers = Shares(self.way.workers) if self.way.kind in {"share", "beside"} else self.group or ALONE
        return lambda until: train(self.state, learns.batch_at, until, lambda *news: None, workers=workers)


class Wrapped(nn.Module):
    """What DDP wraps: its mean over the workers of this is the loss."""

    def __init__(self, model: nn.Module, group: Group):
        super().__init__()
        self.model, self.group = model, group

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        shares = torch.stack(list(self.model(batch, self.group).values()))
        return self.group.count * shares.sum(), shares.detach()


def taking_ddp(learns: Learning, group: Group | None) -> Take:
    """As `training.loop.train`, where DDP adds up the gradients."""
    assert group is not None
    state = learns.state
    loss_of = nn.parallel.DistributedDataParallel(
        Wrapped(state.model.train(), group), forward_sync_buffers=False, gradient_as_bucket_view=True
    )

    def step(state: State) -> None:
        batch = learns.batch_at(state.step)
        state.optimizers.prepare(batch.epoch, state.step)
        loss, shares = loss_of(batch)
        loss.backward()
        group.total(shares)[0].tolist()
        state.optimizers.step(batch.epoch)
        state.step += 1

    def taken(until: int) -> None:
        while state.step < until:
            step(state)

    return taken


def config_of(job: Job, way: Way) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        run_file = Path(folder) / "scaling.yaml"
        run_file.write_text(f"preset: {job.preset}\nstore: {job.store}\nruns: {folder}\ntracking: {{kind: none}}\n")
        changes = {
            "cells_per_step": job.cells * way.times, "genes_per_step": 500, "threads": 1, "source": "cells",
            "streams": max(STREAMS, way.workers),
        }  # fmt: skip
        return load_run(run_file, [f"training.{name}={value}" for name, value in changes.items()])


def learning_of(job: Job, way: Way, rank: int) -> tuple[RunConfig, Learning]:
    config = config_of(job, way)
    view, _ = cells_of(config)
    config = resolved(config, view)
    return config, learning(config, view, rank=Rank(rank, way.workers))


class Team:
    """Processes that wait to be asked: one for all that is done alone, and those that work together."""

    def __init__(self, job: Job, workers: int, stack: ExitStack):
        meeting = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "meeting"
        context = multiprocessing.get_context("spawn")
        self.alone: list[Connection] = []
        self.together: list[Connection] = []
        for rank in (None, *range(workers)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, job, rank, workers, meeting), daemon=True)
            process.start()
            theirs.close()
            (self.alone if rank is None else self.together).append(ours)
            stack.callback(process.join)
        for pipe in (*self.alone, *self.together):
            stack.callback(pipe.close)

    def round(self, way: Way) -> list[Round]:
        """What a round has cost every worker that took part in it."""
        pipes = self.together if way.workers > 1 and way.kind != "share" else self.alone
        for pipe in pipes:
            pipe.send(way)
        return [pipe.recv() for pipe in pipes]


@contextmanager
def team(job: Job, workers: int) -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(job, workers, stack)


def _serve(pipe: Connection, job: Job, rank: int | None, world: int, meeting: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[(rank or 0) % len(cores)]})
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    group = None
    if rank is not None:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
        group = Counted()
    takings: dict[Way, Taking] = {}
    while (way := _asked(pipe)) is not None:
        if way not in takings:
            takings[way] = Taking(job, way, rank or 0, group)
        pipe.send(takings[way].round())
    if rank is not None:
        dist.destroy_process_group()


def _asked(pipe: Connection) -> Way | None:
    try:
        way: Way = pipe.recv()
    except EOFError:
        return None
    return way


class Cost(NamedTuple):
    """Of a step: of the slowest worker, but CPU seconds are the mean of the workers; medians of the rounds."""

    wall: float
    cpu: float
    bytes_sent: float
    messages: float
    peak_mib: float

    @classmethod
    def of(cls, rounds: list[list[Round]]) -> "Cost":
        each = [
            (
                max(one.wall for one in workers), sum(one.cpu for one in workers) / len(workers),
                workers[0].bytes_sent, workers[0].messages, max(one.peak_mib for one in workers),
            )
            for workers in rounds
        ]  # fmt: skip
        found = cls(*map(median, zip(*each, strict=True)))
        return found._replace(peak_mib=each[0][-1])  # of a way that comes first: of it alone


def costs(job: Job, ways: list[Way], rounds: int, workers: int) -> dict[Way, Cost]:
    """Of every way; they take turns."""
    found: dict[Way, list[Any]] = {way: [] for way in ways}
    with team(job, workers) as processes:
        for _ in range(rounds):
            for way in ways:
                found[way].append(processes.round(way))
    return {way: Cost.of(each) for way, each in found.items()}
