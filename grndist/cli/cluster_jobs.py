"""The commands around a run on a cluster: doctor, preflight, submit."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.cli.options import Address, Workers, of_workers
from grndist.errors import UserError

OptionalRunFile = Annotated[Path | None, typer.Argument(help="a run file, e.g. configs/dazzle.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(help="changes to it, e.g. training.epochs=5")]


def doctor(
    run_file: OptionalRunFile = None,
    overrides: Overrides = None,
    address: Annotated[
        str, typer.Option(help="HOST:6379 of a Ray cluster, or http://HEAD:8265 of its job server")
    ] = "",
) -> None:
    """Say what is amiss on this machine, on a cluster's nodes, and where a run reads and writes."""
    from grndist.launch.checks import exit_status, rendered
    from grndist.launch.doctor import doctor as look
    from grndist.runs import load_run

    checks = look(None if run_file is None else load_run(run_file, overrides or []), address)
    print("\n".join(map(rendered, checks)))
    raise typer.Exit(exit_status(checks))


def preflight(
    run_file: Annotated[Path, typer.Argument(help="a run file, e.g. configs/dazzle.yaml")],
    overrides: Overrides = None,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Try out a run before it starts: room, storage, memory, and how long it will take."""
    from grndist.launch.checks import exit_status, rendered
    from grndist.launch.preflight import preflight as look
    from grndist.runs import load_run

    checks = []
    for check in look(load_run(run_file, [*(overrides or []), *of_workers(workers, address)])):
        print(rendered(check), flush=True)
        checks.append(check)
    raise typer.Exit(exit_status(checks))


def submit(
    run_file: OptionalRunFile = None,
    overrides: Overrides = None,
    address: Annotated[str, typer.Option(help="of the cluster's job server, e.g. http://HEAD:8265")] = "",
    workers: Workers = None,
    preflight: Annotated[bool, typer.Option(help="try the run out there before it starts")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="do not wait for the job")] = False,
    follow: Annotated[str, typer.Option(metavar="JOB", help="come back to a job that was submitted")] = "",
    stop: Annotated[str, typer.Option(metavar="JOB", help="end a job that was submitted")] = "",
) -> None:
    """Train a run as a job of a running Ray cluster, and show its log; Ctrl-C leaves the job alone."""
    from grndist.launch import submit as jobs
    from grndist.launch.jobs import JobServer

    if sum([run_file is not None, bool(follow), bool(stop)]) != 1:
        raise UserError("give a run file, --follow JOB or --stop JOB")
    if not address:
        raise UserError("give --address, that of the cluster's job server: http://HEAD:8265")
    job = (
        None
        if run_file is None
        else jobs.job_of(run_file, [*(overrides or []), *of_workers(workers, None)], preflight, resume)
    )
    server = JobServer(address)
    if stop:
        print(f"{stop}: {'is being stopped' if server.stop(stop) else 'was over already'}")
        return
    if job:
        jobs.submit(server, job)
        print(f"submitted {job.name}: {job.entrypoint}\n{jobs.coming_back(server.address, job.name)}\n", flush=True)
    name = job.name if job else follow
    if not detach:
        standing = jobs.followed(server, name, lambda text: print(text, end="", flush=True))
        print(f"\n{jobs.summary(name, standing)}")
        raise typer.Exit(standing.exit_status)
