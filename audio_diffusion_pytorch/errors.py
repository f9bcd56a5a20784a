"""Exceptions that commands report in one line."""


class InputError(ValueError):
    """Unusable input; the message names the cause, the place and the remedy."""


class Interrupted(BaseException):
    """End of a run by a signal, after its state was saved; the exit status is 128 + `signal`.

    Args:
        signal: number of the signal.
        message: message for the user.
    """

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = int(signal)
