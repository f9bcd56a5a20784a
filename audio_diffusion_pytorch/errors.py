"""The error that a user can act on, and how a command ends with it."""

_TEMPORARY_BYTES = 120  # of a temporary name, so that it fits on every disk


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class Interrupted(BaseException):
    """A signal ended the run after its state was saved; the command's exit status is 128 + `signal`."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = int(signal)
