"""Progress bars on long work; silent where the output is not a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def bar(*extra: str) -> Iterator[Progress]:
    """Show a progress bar on stderr; `extra` are format strings over the task's fields, e.g. "{task.fields[loss]}"."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *map(TextColumn, extra)]
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        yield progress


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield `items` while a bar counts them."""
    with bar() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def watched(done: Callable[[], int], description: str, total: int) -> Iterator[None]:
    """Show `done()` of `total` while the block runs: for work that other threads or machines do."""
    with bar() as progress:
        if progress.disable:
            yield
            return
        task, over = progress.add_task(description, total=total, completed=done()), Event()

        def look() -> None:
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                progress.update(task, completed=done())

        watcher = Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            progress.update(task, completed=done())
