"""`--on-ambiguous`: what `trackgpt track` does where several things fit an instruction about equally well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trackgpt.errors import AmbiguousError, UsageError

if TYPE_CHECKING:
    from trackgpt.app.live import Printer
    from trackgpt.session.choices import Ambiguity

WAYS = ("best", "all", "ask", "fail")


def check_way(way: str) -> None:
    """Refuse what is none of the ways, and to ask where nobody can answer.

    Raises:
        UsageError: see above.
    """
    if way not in WAYS:
        raise UsageError(f"--on-ambiguous {way}: choose {', '.join(WAYS)}")
    if way == "ask" and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--on-ambiguous ask: asks at a terminal, and there is none; choose best, all or fail")


def answering(way: str, printer: Printer, folder: Path) -> Callable[[Ambiguity], str]:
    """What answers a session's choices (`trackgpt.session.session.Session.on_choice`).

    Args:
        way: one of `WAYS`.
        printer: tells what is done.
        folder: of the run, for the picture of what may be chosen from.
    """

    def best(choice: Ambiguity) -> str:
        advice = "say which one is meant, or use --on-ambiguous all, ask or fail"
        printer.note(f"frame {choice.frame.index}: {choice.text}; the first {_followed(choice)}; {advice}")
        return ""

    def everything(choice: Ambiguity) -> str:
        printer.note(f"frame {choice.frame.index}: {choice.text}; all are followed")
        return "all"

    def ask(choice: Ambiguity) -> str:
        with printer.paused():
            return asked(choice, folder)

    def fail(choice: Ambiguity) -> str:
        advice = "say which one (on the left, the second from the left), show it (--box), or --on-ambiguous best or all"
        raise AmbiguousError(f"frame {choice.frame.index}: {choice.text}; {advice}", "NL06")

    return {"best": best, "all": everything, "ask": ask, "fail": fail}[way]


def _followed(choice: Ambiguity) -> str:
    return "one is followed" if choice.followed == 1 else f"{choice.followed} are followed"


def asked(choice: Ambiguity, folder: Path) -> str:
    """Ask at the terminal until there is an answer, and give it; "" where none of the numbers is wanted.

    Args:
        choice: what to choose from.
        folder: a picture of it is written there, for terminals that show none.
    """
    from trackgpt.app.live import say
    from trackgpt.app.pictures import picture_of_choice

    print(picture_of_choice(choice, folder), file=sys.stderr)
    say(f"frame {choice.frame.index}: {choice.text}")
    while True:
        print(f"which one? number, numbers, all, or x,y [{_usual(choice)}]: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return ""
        try:
            if choice.understood(line) is not None:
                return line.strip()
            say("wanted numbers, such as 2, or a point, such as 320,180; Enter goes on with the surest")
        except UsageError as error:
            say(error.message)


def _usual(choice: Ambiguity) -> str:
    return "1" if choice.followed == 1 else f"1 to {choice.followed}"
