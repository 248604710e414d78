"""Why a daemon could not start, each with its exit code."""


class StartError(Exception):
    """The daemon cannot start; the message is for people, one line."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Keep the sentence that people will see."""
        super().__init__(message)
        self.message = message


class EngineChoiceError(StartError):
    """The engine that somebody chose cannot run here."""

    exit_code = 2


class AddressChoiceError(StartError):
    """The address that somebody chose is none of this machine's."""

    exit_code = 2


class PortInUseError(StartError):
    """Another program holds the port."""

    exit_code = 3


class StateInUseError(StartError):
    """Another daemon runs on the same state folder."""

    exit_code = 4


class BadTokenError(StartError):
    """The node was told to join by a token that cannot be used."""

    exit_code = 5


class NotJoinedError(StartError):
    """No member of the mesh can be reached, and the node was told to end then."""

    exit_code = 6
