"""What can go wrong, named. Every message is one sentence: what came, what is legal, what to do."""


class InputError(ValueError):
    """The caller's file, number or choice cannot be used; the message says what to change."""


class DoesNotFit(InputError):
    """The clip needs more memory than the device has; raised before any work."""


class CheckpointError(InputError):
    """Weights that cannot be found, read, or do not belong to the model family."""


class Cancelled(Exception):
    """The caller asked a running reconstruction to stop."""
