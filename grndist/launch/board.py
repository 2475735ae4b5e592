"""What the first worker and the process that started a run tell each other, by way of an actor on the cluster.

The actor is a process of its own: nothing heavy is imported here, and messages are bytes to it.
"""


class Board:
    """Messages, whether to stop, and why nobody need try again."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._stop = False
        self._mistake = ""

    def tell(self, message: bytes) -> bool:
        """Keep a message of the first worker; whether it is to stop."""
        self._messages.append(message)
        return self._stop

    def take(self) -> list[bytes]:
        """The messages since the last call."""
        taken, self._messages = self._messages, []
        return taken

    def stop(self) -> None:
        """Ask the workers to stop."""
        self._stop = True

    def note(self, mistake: str) -> None:
        """Keep the first mistake that another attempt would not mend."""
        self._mistake = self._mistake or mistake

    def mistake(self) -> str:
        """The first that was noted; empty if none was."""
        return self._mistake
