"""What is wrong with an sbatch script that starts Ray by `ray symmetric-run`: its shell, and that command's rules."""

import re
import shlex
import subprocess
from typing import NamedTuple

from grndist.launch.cluster_files import secrets
from grndist.launch.cluster_files.problems import ClusterFileError

DIRECTIVE = re.compile(r"#SBATCH\s+(-{1,2}[\w-]+)(?:(?:=|\s+)([^\s#]+))?")
SHORT = {"-N": "--nodes", "-n": "--ntasks", "-c": "--cpus-per-task"}
ALL_NODES = {"$SLURM_JOB_NUM_NODES", "$SLURM_NNODES"}


class Line(NamedTuple):
    """A command with its continuation lines, and the number of its first line."""

    number: int
    text: str


def problems(text: str) -> list[str]:
    """Every problem, a line each."""
    if "\r" in text:
        return ["lines end with CRLF, which bash takes for part of the commands; convert the file, e.g. with dos2unix"]
    found = _syntax(text)
    if found:
        return found
    lines, directives = _commands(text), _directives(text)
    return [
        *_reserved(directives, text),
        *_run(lines, directives),
        *_authentication(lines),
        *(one for line in [Line(1, text.partition("\n")[0]), *lines] for one in _forbidden(line)),
    ]


def _syntax(text: str) -> list[str]:
    command = ["bash", "-n"]  # which reads a script and runs nothing of it
    try:
        said = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterFileError(
            "there is no bash here, which reads sbatch scripts; check the file where there is one"
        ) from None
    errors = [line.partition(": ")[2] for line in said.stderr.splitlines() if said.returncode]
    return [f"{line}; mend the shell syntax" for line in errors[:1]]


def _commands(text: str) -> list[Line]:
    """The commands, without comments."""
    lines: list[Line] = []
    goes_on = False
    for number, line in enumerate(text.splitlines(), 1):
        part = line.removesuffix("\\")
        if goes_on:
            first = lines.pop()
            lines.append(Line(first.number, first.text + part))
        elif line.strip() and not line.lstrip().startswith("#"):
            lines.append(Line(number, part))
        goes_on = line.endswith("\\") and (goes_on or not line.lstrip().startswith("#"))
    return lines


def _directives(text: str) -> dict[str, str]:
    """What #SBATCH lines ask of Slurm, under long names."""
    found = [match for line in text.splitlines() if (match := DIRECTIVE.match(line))]
    return {SHORT.get(one[1], one[1]): one[2] or "" for one in found}


def _reserved(directives: dict[str, str], text: str) -> list[str]:
    """The problems of what is asked of Slurm."""
    lines = []
    if directives.get("--exclusive") != "":
        lines.append(
            "#SBATCH --exclusive: missing or limited; Ray's end, `ray stop`, would end others' Ray on a shared node; "
            "add #SBATCH --exclusive"
        )
    if "--nodes" not in directives:
        lines.append("#SBATCH --nodes: missing; say on how many nodes Ray starts, e.g. #SBATCH --nodes=4")
    if directives.get("--ntasks-per-node") != "1":
        given = directives.get("--ntasks-per-node", "nothing")
        lines.append(
            f"#SBATCH --ntasks-per-node: {given} was given; one Ray starts per node: #SBATCH --ntasks-per-node=1"
        )
    return [*lines, *_late(text)]


def _late(text: str) -> list[str]:
    commands = _commands(text)
    first = commands[0].number if commands else 0
    late = [n for n, line in enumerate(text.splitlines(), 1) if line.startswith("#SBATCH") and n > first]
    return [f"line {n}: Slurm reads no #SBATCH after the first command; move it up" for n in late]


def _run(lines: list[Line], directives: dict[str, str]) -> list[str]:
    """The problems of the one command that starts Ray on all nodes."""
    runs = [line for line in lines if re.search(r"\bray\s+symmetric-run\b", line.text)]
    if len(runs) != 1:
        return [f"`ray symmetric-run` occurs {len(runs)} times; once, by srun, it starts Ray on all nodes"]
    words = shlex.split(runs[0].text, comments=True)
    start = words.index("symmetric-run")
    stop = words.index("--", start) if "--" in words[start:] else len(words)
    place, own = f"line {runs[0].number}", words[start:stop]
    found = (
        [] if "srun" in words[:start] else ["srun is missing, so Ray starts on one node: srun ray symmetric-run ..."]
    )
    if not words[stop + 1 :]:
        found.append("there is no command to run; put `-- grndist train ...` at the end")
    if not _option(own, "--address"):
        found.append('--address is missing: that of the first node, e.g. --address "$head_ip:6379"')
    return [f"{place}: {one}" for one in [*found, *_count(own, directives.get("--nodes", ""))]]


def _count(own: list[str], nodes: str) -> list[str]:
    """The problem of another number of nodes than Slurm gives: Ray waits for exactly so many, in vain."""
    count = _option(own, "--min-nodes").replace("{", "").replace("}", "")
    if not nodes or count in ALL_NODES or count == nodes:
        return []
    shown = f"--min-nodes {count} is unlike #SBATCH --nodes={nodes}" if count else "--min-nodes is missing"
    return [f'{shown}, and Ray starts with exactly that many; give --min-nodes "$SLURM_JOB_NUM_NODES"']


def _option(words: list[str], name: str) -> str:
    """The value of an option; empty if it is not given."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name or word.startswith(f"{name}="):
            return following if word == name else word.partition("=")[2]
    return ""


def _authentication(lines: list[Line]) -> list[str]:
    for line in lines:
        if re.search(r"\bexport\b.*\bRAY_AUTH_MODE=[\"']?token\b", line.text):
            return []
        if "symmetric-run" in line.text:
            break
    return ["RAY_AUTH_MODE: Ray starts without authentication; put `export RAY_AUTH_MODE=token` before it"]


def _forbidden(line: Line) -> list[str]:
    """The problems that a command may have wherever it stands."""
    place = f"line {line.number}"
    found = secrets.in_command(place, line.text)
    if re.search(r"\bray\s+stop\b", line.text):
        found.append(f"{place}: `ray stop` ends every Ray of the node, and symmetric-run does so itself; leave it out")
    if re.search(r"--dashboard-host[= ][\"']?(?:0\.0\.0\.0|::)", line.text):
        found.append(f"{place}: the dashboard listens to every network; leave --dashboard-host out")
    return found
