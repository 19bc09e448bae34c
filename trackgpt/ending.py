"""How every program of the package ends: one line on stderr, and an exit code of one table.

Standard output may close, fill up or break while a program works. What it cannot take is dropped, the work goes on, and
only then a full disk is an error; a reader that went away (`| head`) is none, nor is one that never was (`>&-`).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

from trackgpt.errors import CODES, TrackGPTError

EXIT_CODES = {
    0: "done",
    1: "done, with warnings under --strict",
    2: "usage: options, configuration, an empty instruction",
    3: "input: the source, data or results cannot be read",
    4: "model: weights are missing, damaged or do not fit",
    5: "nothing was ever found, or several things fit (NL06)",
    6: "output: it exists, or cannot be written",
    7: "memory",
    70: "a defect of this package",
    130: "interrupted by Ctrl-C; what was done is kept",
    143: "stopped by SIGTERM; what was done is kept",
}
"""What each exit code means, for `trackgpt`, `python -m train`, `eval` and `data_tools` alike."""
HELP = {"help_option_names": ["-h", "--help"]}
"""How every program is asked for its help, for `typer.Typer(context_settings=...)`."""
STOPPED = 143
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
INTERRUPTED = 130


def table() -> str:
    """Exit codes and the codes in front of messages, as the README shows them."""
    ends = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    codes = [f"| {code} | {meaning} |" for code, meaning in CODES.items()]
    return "\n".join(["| exit code | |", "|---|---|", *ends, "", "| code | situation |", "|---|---|", *codes]) + "\n"


class TerminatedError(BaseException):
    """SIGTERM came; what Ctrl-C keeps is kept. No KeyboardInterrupt, which typer would take for Ctrl-C."""


def run(program: str, command: Callable[[], Any]) -> None:
    """Run a program and leave with its exit code; nothing but a defect under TRACKGPT_TRACEBACK raises.

    SIGTERM ends it as Ctrl-C does, unless the program listens to it by itself.

    Args:
        program: its name in front of the line on stderr.
        command: gives the exit code, or None for 0; typer's applications with `standalone_mode=False` do.
    """
    _open_what_is_closed()
    handler = signal.signal(signal.SIGTERM, _stop) if threading.current_thread() is threading.main_thread() else None
    before, sys.stdout = sys.stdout, Stdout(sys.stdout)  # type: ignore[assignment]
    out: Any = sys.stdout
    try:
        code = _code_of(program, command)
        out.flush()
        if out.failure is not None and out.failure.errno != errno.EPIPE and code in (0, 1):
            say(program, f"OUT02: standard output cannot be written ({out.failure.strerror}); all else was done")
            code = 6
    finally:
        sys.stdout = before
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
    sys.exit(code)


def _stop(number: int, frame: object) -> None:
    raise TerminatedError


def say(program: str, text: str) -> None:
    """One line of talk, on stderr; where that is gone, too, nobody listens."""
    try:
        sys.stderr.write(f"{program}: {' '.join(text.split())}\n")
        sys.stderr.flush()
    except OSError:
        _to_nowhere(sys.stderr)


class Stdout:
    """Standard output that never raises: after a failure the rest is dropped.

    Attributes:
        failure: why it could not be written, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):
                stream.reconfigure(errors="backslashreplace")  # a name or an answer that the terminal cannot show

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            act()
        except OSError as error:
            self.failure = error
            _to_nowhere(self._stream)


def _to_nowhere(stream: TextIO) -> None:
    """Point a stream's file descriptor at the null device, so that what is buffered does not fail again at exit."""
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _open_what_is_closed() -> None:
    """A closed standard stream becomes the null device: else the next file that is opened would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the program lives


def _code_of(program: str, command: Callable[[], Any]) -> int:
    import typer

    try:
        code = command()
    except TrackGPTError as error:
        say(program, str(error))
        return error.exit_code
    except TerminatedError:
        say(program, "stopped by SIGTERM")
        return STOPPED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as error:
        return int(error.exit_code)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except Exception as error:
        return _unforeseen(program, error)
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        say(program, "interrupted")
    return int(code or 0)


def _unforeseen(program: str, error: Exception) -> int:
    """The exit code of an error that is not ours, after its line: wrong option, no memory, the system, a defect."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        # The parser's own errors, known by what they offer: its classes have moved between versions of typer.
        shown = program if program == "trackgpt" else f"python -m {program}"
        if type(error).__name__ != "NoArgsIsHelpError":  # by then the help has been printed
            say(program, f"{usage().rstrip('.')}; {shown} --help shows what there is")
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
        say(
            program,
            "MD05: out of memory; use a smaller model, smaller frames, or --device cpu; what was written is kept",
        )
        return 7
    if os.environ.get("TRACKGPT_TRACEBACK"):
        raise error
    if isinstance(error, OSError) and error.errno is not None:
        return _refused_by_the_system(program, error)
    kind = f"{type(error).__name__}: {error}"
    say(program, f"a defect of trackgpt, please report it: {kind} (TRACKGPT_TRACEBACK=1 shows where)")
    return 70


def _refused_by_the_system(program: str, error: OSError) -> int:
    where = error.filename if isinstance(error.filename, str | bytes) else "a file"
    where = os.fsdecode(where)
    if error.errno in UNWRITABLE:
        say(program, f"OUT02: {where}: cannot be written ({error.strerror}); what was written before stays valid")
        return 6
    say(program, f"{where}: cannot be read ({error.strerror}); check the path and its permissions")
    return 3
