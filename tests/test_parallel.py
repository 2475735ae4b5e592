import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.parallel import for_each, pieces
from tests.models.threads import in_threads


@given(n=st.integers(0, 100), size=st.integers(1, 30))
def test_pieces_cover_everything_once_in_order(n: int, size: int):
    covered = [position for piece in pieces(n, size) for position in range(piece.start, piece.stop)]
    assert covered == list(range(n))


@pytest.mark.parametrize("threads", [1, 3])
def test_every_part_is_worked_on_once(threads: int):
    done: list[tuple[int, int]] = []
    in_threads(threads, lambda: for_each(pieces(20, 3), lambda number, part: done.append((number, part.start))))
    assert sorted(done) == [(number, 3 * number) for number in range(7)]


def test_two_threads_are_at_work_at_once():
    meeting = threading.Barrier(2, timeout=30)
    in_threads(2, lambda: for_each(pieces(2, 1), lambda number, part: meeting.wait()))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_part_is_the_callers(threads: int):
    def fail(number: int, part: slice) -> None:
        raise ZeroDivisionError(str(number))

    with pytest.raises(ZeroDivisionError):
        in_threads(threads, lambda: for_each(pieces(4, 1), fail))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    def in_parent_and_child() -> int:
        for_each(pieces(4, 1), lambda number, part: None)
        child = os.fork()
        if child == 0:
            for_each(pieces(4, 1), lambda number, part: None)
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_threads(2, in_parent_and_child) == 7
