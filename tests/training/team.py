"""Processes that train together over gloo, started once and used by many tests."""

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from grndist.errors import UserError
from grndist.training.distributed import Group


class Team:
    """`size` idle processes, which end with the one that started them."""

    def __init__(self, size: int, folder: Path):
        self.folder, self.jobs = folder, 0
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.training.together", "torch._dynamo"])  # imported once for all of them
        self.pipes, self.processes = [], []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `work(group, *arguments)` returns in each of `world` processes, or the UserError that it raises."""
        self.jobs += 1
        meeting = self.folder / f"meeting-{self.jobs}"
        for rank, pipe in enumerate(self.pipes[:world]):
            pipe.send((work, arguments, rank, world, meeting))
        return [pipe.recv() for pipe in self.pipes[:world]]

    def close(self) -> None:
        """Let the processes end."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def _serve(pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        pipe.send(_done(*job))


def _done(work: Callable[..., Any], arguments: tuple[Any, ...], rank: int, world: int, meeting: Path) -> Any:
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=limit)
    dist.barrier()  # nobody leaves before all have come, not even for an error
    try:
        return work(Group(), *arguments)
    except UserError as error:
        return error
    finally:
        dist.destroy_process_group()
