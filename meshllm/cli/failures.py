"""How a command ends when it cannot do what it was asked: one line for people, one number for programs.

Owns the exit codes. Doesn't print: `main` does.
"""

from enum import IntEnum

EPILOG = """Exit codes: 0 done, also for a node that Ctrl-C or a signal ended; 1 failed; 2 wrong usage or
configuration; 3 the port is in use; 4 another node runs on the same state folder; 5 a token cannot be used;
6 --require-join and no member of the mesh can be reached; 130 a command was interrupted; 141 nobody read the
output to its end."""


class ExitCode(IntEnum):
    """What a command says by its exit."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PORT_IN_USE = 3
    STATE_IN_USE = 4
    BAD_TOKEN = 5
    NOT_JOINED = 6
    INTERRUPTED = 130
    """By Ctrl-C, while a command waited; the number that shells use."""
    NO_READER = 141
    """Whoever read the output left, as `head` does; the number that shells use."""


class CommandError(Exception):
    """A command that ends with a sentence on standard error."""

    def __init__(self, message: str, exit_code: int = ExitCode.FAILED) -> None:
        """Keep the sentence and the exit code."""
        super().__init__(message)
        self.message, self.exit_code = message, exit_code
