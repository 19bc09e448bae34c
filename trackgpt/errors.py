"""Errors a person can act on: what went wrong, where, what was wanted, what to do.

Every class carries the exit code of the command line. The code in front of a message (``IN01``, ``NL02``, ...)
names a row of the error table in the README, so that a message can be looked up and a test can name it.
"""

from typing import Self

CODES = {
    "IN01": "the source is missing or may not be read",
    "IN02": "no frame could be decoded",
    "IN03": "a frame in the middle is damaged: recorded as such, tracking goes on, indices stay",
    "IN04": "the header's frame rate or length does not hold or is a guess, or the source changed while it was read",
    "IN05": "the frame size changes: recorded, tracking goes on",
    "IN06": "a stream dropped and did not come back",
    "IN07": "a frame is larger than `max_pixels`",
    "IN08": "a folder with mixed sizes or gaps",
    "MD01": "weights are missing, or there is no such model",
    "MD02": "weights, configuration or tokenizer are damaged or do not fit",
    "MD04": "the device is not there",
    "MD05": "out of memory",
    "MD06": "a brain or a perception of a kind that is not supported; the line says what to use instead",
    "NL01": "the instruction is empty",
    "NL02": "the instruction is too long",
    "NL03": "markup in an instruction is taken out and never interpreted",
    "NL05": "nothing matched on any frame",
    "NL06": "several things fit an instruction about equally well, with --on-ambiguous fail",
    "OUT01": "the output exists, or holds what is read",
    "OUT02": "the output cannot be written",
    "OUT03": "a run cannot go on: its source, its files or its model have changed",
}
"""What each code in front of a message means; a warning has one, too."""


class TrackGPTError(Exception):
    """Base class of everything the package raises on purpose; the command line prints its message alone."""

    exit_code = 1

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.message = message
        self.code = code

    def at(self, where: object) -> Self:
        """The same error with the file in front in which it was found."""
        return type(self)(f"{where}: {self.message}", self.code)


class UsageError(TrackGPTError):
    """The request itself cannot be understood: options, configuration, an empty or over-long instruction."""

    exit_code = 2


class InputError(TrackGPTError):
    """The source cannot be read: missing, empty, damaged, too large, or changing where it must not."""

    exit_code = 3


class ModelError(TrackGPTError):
    """Weights are missing, damaged, or do not fit the configuration."""

    exit_code = 4


class NothingFoundError(TrackGPTError):
    """The instruction named something that was never found in the whole source."""

    exit_code = 5


class AmbiguousError(TrackGPTError):
    """Several things fit an instruction about equally well, and nobody says which one is meant."""

    exit_code = 5


class OutputError(TrackGPTError):
    """The output cannot be written: it exists, the disk is full, the place is read-only."""

    exit_code = 6


class OutOfMemoryError(TrackGPTError):
    """The device has not enough memory for the model or the frames."""

    exit_code = 7
