"""The error that a user can act on, and how a command ends with it."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class Interrupted(BaseException):
    """A signal ended the run after its state was saved; the command's exit status is 128 + `signal`."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = int(signal)
