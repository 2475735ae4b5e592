"""What a run takes of its machine, against what this process knows of itself."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from grndist.tracking.code_version import code_tags
from grndist.tracking.usage import _of_tree

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")


def test_memory_and_time_of_this_process_are_those_that_it_knows():
    import psutil

    seconds, resident = _of_tree()
    used = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    known = used.ru_utime + used.ru_stime + ended.ru_utime + ended.ru_stime
    children = psutil.Process().children(recursive=True)  # that other tests have left, such as idle workers
    known += sum(sum(each.cpu_times()[:4]) for each in children)
    assert seconds == pytest.approx(known, abs=0.2 + 0.02 * known)
    assert resident >= 0.9 * psutil.Process().memory_info().rss
    assert resident <= 1.1 * sum(each.memory_info().rss for each in [psutil.Process(), *children])


def test_children_count():
    block = "x = bytearray(200 * 2**20); print(flush=True); input()"
    before = _of_tree()[1]
    with subprocess.Popen([sys.executable, "-c", block], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert _of_tree()[1] - before > 190 * 2**20
        child.communicate(b"\n")


def test_the_commit_of_a_checkout_is_the_code_s():
    tags = code_tags()
    assert tags["grndist.version"]
    if (ROOT / ".git").exists():
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        assert tags["grndist.commit"] == commit.stdout.strip()
        assert tags["grndist.commit_is_dirty"] in ("true", "false")
