import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "rehearse_two_hosts.sh"
VERDICTS = 9

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is not installed"),
]


def may_make_namespaces() -> bool:
    made = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, check=False)
    return made.returncode == 0


def folders() -> set[Path]:
    return set(Path("/tmp").glob("grndist-rehearsal.*"))


def hosts_of(rehearsal: subprocess.Popen[str]) -> list[int]:
    """The first process of each host."""
    found = psutil.Process(rehearsal.pid).children(recursive=True)
    return [process.pid for process in found if "sleep infinity & wait" in command_of(process)]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (
        psutil.NoSuchProcess
    ):  # short-lived commands of the script end while they are listed; zombies are of this class
        return ""


@pytest.fixture
def rehearsal() -> Iterator[subprocess.Popen[str]]:
    if not may_make_namespaces():
        pytest.skip("this root may not make namespaces")
    before = folders()
    given = os.environ | {"PYTHON_ENV": sys.prefix}
    with subprocess.Popen([SCRIPT], env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        yield running
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)  # it ends its hosts, which a kill would leave
    assert f"rehearsal-{running.pid}-" not in subprocess.check_output(["ip", "netns", "list"], text=True)
    assert folders() <= before


@pytest.mark.rehearsal
def test_a_run_outlives_the_host_that_is_cut_off(rehearsal: subprocess.Popen[str]):
    said, _ = rehearsal.communicate(timeout=600)
    assert rehearsal.returncode == 0, said
    verdicts = said.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in verdicts] == ["ok"] * VERDICTS, said


@pytest.mark.ray
def test_stopped_half_way_it_leaves_nothing_behind(rehearsal: subprocess.Popen[str]):
    assert rehearsal.stdout is not None
    assert any("a cable between them" in line for line in rehearsal.stdout)
    assert (hosts := hosts_of(rehearsal))
    rehearsal.send_signal(signal.SIGTERM)
    rehearsal.communicate(timeout=120)
    assert rehearsal.returncode == 128 + signal.SIGTERM
    assert not any(psutil.pid_exists(host) for host in hosts)
