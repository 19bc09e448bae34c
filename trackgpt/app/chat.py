"""`trackgpt chat SOURCE`: say what to follow while it plays, correct it, take it back.

Plain words are an instruction about the frame at hand; what begins with a colon is a command; "@40" lets frames pass
until frame 40 comes. A terminal shows a line of progress above the line that is typed. From a pipe or a file, lines are
obeyed one after the other and frames pass only where a line waits for them, so that the same lines give the same run.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Protocol

from trackgpt.app.instructions import parse_instruction
from trackgpt.app.live import say
from trackgpt.app.pictures import picture_of_choice, shown_picture
from trackgpt.app.pointing import read_shown
from trackgpt.app.summary import event_line
from trackgpt.errors import InputError, UsageError
from trackgpt.types import PROMPT_KINDS, Prompt

if TYPE_CHECKING:
    from trackgpt.app.tracking import RunSummary, TrackRequest
    from trackgpt.export.records import EventRecord
    from trackgpt.session.playback import Playback
    from trackgpt.session.results import Reply, Result

COMMANDS = {
    "pause": "stop here",
    "play": "go on",
    "choose": "N N, or x,y  which of the numbered boxes is meant",
    "seek": "N  go to frame N; back to one that was tracked opens a new take",
    "undo": "take back what was said last",
    "takes": "the ways through the video so far",
    "take": "N  go on as in take N",
    "box": "[ID:]x,y,w,h  what is in the box; a known ID is corrected",
    "point": "[ID:]x,y[,-]  a point on the target; - for one that is not",
    "mask": "[ID:]FILE  a mask, or a label map of several targets",
    **dict.fromkeys(PROMPT_KINDS, "TEXT  words of this kind, whatever they sound like"),
    "drop": "[ID,ID]  these targets end, or all",
    "resume": "ID or TEXT  go back to a former target",
    "show": "a picture of the last frame",
    "help": "this list",
    "quit": "the end; the run is kept",
}
"""Commands, and what they do; the capitals are what follows them."""
NUMBERED, SHOWING = ("seek", "take"), ("box", "point", "mask")
QUIET = ("start", "instruction", "answer", "done")
"""Events that are told in another way, or by themselves."""
PROMPT = "> "


@dataclass(frozen=True)
class ChatOrder:
    """A line that was typed.

    Attributes:
        verb: "say", "wait", "nothing", or one of `COMMANDS`.
        text: what follows it.
        number: the frame or take that it names; infinite for the end.
    """

    verb: str
    text: str = ""
    number: float = 0


def read_order(line: str) -> ChatOrder:
    r"""Read a line: "the red one", ":seek 40", "@40" or "@end"; a leading backslash makes it words.

    Raises:
        UsageError: there is no such command, or a number is missing.
    """
    line = line.strip()
    if not line:
        return ChatOrder("nothing")
    if line.startswith("@") and (line == "@end" or line[1:].isascii() and line[1:].isdigit()):
        return ChatOrder("wait", number=math.inf if line == "@end" else int(line[1:]))
    if not line.startswith(":"):
        return ChatOrder("say", line)
    verb, _, rest = line[1:].partition(" ")
    if verb not in COMMANDS:
        near = get_close_matches(verb, COMMANDS, 1)
        hint = f"did you mean :{near[0]}?" if near else ":help shows what there is"
        raise UsageError(f":{verb}: no such command; {hint}")
    rest = rest.strip()
    if verb in NUMBERED:
        if not (rest.isascii() and rest.isdigit()):
            raise UsageError(f":{verb} {rest:.40}: wanted a whole number after it")
        return ChatOrder(verb, rest, int(rest))
    if verb in (*SHOWING, "choose", "start", "correct", "switch", "add", "resume") and not rest:
        raise UsageError(f":{verb}: wanted {COMMANDS[verb].partition('  ')[0]} after it")
    return ChatOrder(verb, rest)


class Dialogue:
    """Orders and frames of one playback, in the order in which they come.

    Args:
        playback: what plays.
        tell: takes every line for the person.

    Attributes:
        over: it has been ended.
        playing: frames pass by themselves.
        until: frames pass until this one comes, whatever is typed; None where none is waited for.
        last: the last frame, or None.
    """

    def __init__(self, playback: Playback, tell: Callable[[str], None]) -> None:
        self.playback = playback
        self.over = False
        self.playing = True
        self.until: float | None = None
        self.last: Result | None = None
        self._tell = tell
        self._frames: Iterator[Result] | None = None
        playback.on_event = self._hear

    def hear(self, line: str) -> None:
        """Do what a line says; what cannot be done is told."""
        try:
            self._obey(read_order(line))
        except (UsageError, InputError) as error:
            self._tell(f"  ! {error}")

    def _obey(self, order: ChatOrder) -> None:
        if order.verb == "say":
            _refuse_order(order.text, self.playback.session.choice is not None)
            words = parse_instruction(order.text)
            self._answer(self.playback.say(words.text, words.frame, words.second))
        elif order.verb in SHOWING:
            active = [target.id for target in self.playback.session.state.active]
            self._answer(self.playback.say(read_shown(order.verb, order.text, active)))
        elif order.verb == "choose":
            self._answer(self.playback.say(choose=order.text))
        elif order.verb in PROMPT_KINDS:
            self._answer(self.playback.say(_of_kind(order)))
        elif order.verb in ("wait", "seek"):
            self._go_to(order)
        elif order.verb != "nothing":
            getattr(self, f"_{order.verb}")(order)

    def advance(self) -> Result | None:
        """The next frame; None where there is none, or where a frame that was waited for comes next."""
        try:
            if not self.playback.told:
                raise UsageError("nothing to track yet; say what to follow first")
            if self.until is not None and self._has_come(self.until):
                self.until = None
                return None
            self._frames = self._frames or iter(self.playback)
            result = next(self._frames, None)
        except UsageError as error:
            self._tell(f"  ! {error}")
            result = None
        self.last = result or self.last
        if result is None:
            self._frames, self.until, self.playing = None, None, False
        return result

    def _has_come(self, index: float) -> bool:
        frame = None if index == math.inf else self.playback.upcoming
        return frame is not None and frame.index >= index

    def _go_to(self, order: ChatOrder) -> None:
        frame = self.playback.upcoming if order.verb == "seek" else None
        passed = math.inf if frame is None and order.verb == "seek" else -1 if frame is None else frame.index
        if order.verb == "seek" and order.number < passed:
            self.playback.seek(int(order.number))
            self._back(f"frame {order.text}")
        else:
            self.until = order.number

    def _back(self, where: str) -> None:
        self.playing = True
        said = self.playback.session.prompts
        self._tell(f"  {where}: {said[-1].summary!r} holds" if said else f"  {where}: nothing has been said yet")

    def _pause(self, order: ChatOrder) -> None:
        self.playing = False

    def _play(self, order: ChatOrder) -> None:
        self.playing = True

    def _undo(self, order: ChatOrder) -> None:
        text = self.playback.undo()
        self._back(f"took back {text!r}")

    def _takes(self, order: ChatOrder) -> None:
        for take in self.playback.session.takes:
            parent = f", goes on from take {take.parent} at frame {take.start}" if take.parent else ""
            self._tell(f"  take {take.number}{parent}")

    def _take(self, order: ChatOrder) -> None:
        self._back(f"as in take {order.text} from frame {self.playback.switch_take(int(order.number))}")

    def _show(self, order: ChatOrder) -> None:
        if (choice := self.playback.session.choice) is not None:
            self._tell(picture_of_choice(choice, self.playback.run.path))
            return
        if self.last is None or self.last.frame is None:
            raise UsageError(":show: there is no picture yet")
        self._tell(shown_picture(self.last, self.playback.run.path))

    def _help(self, order: ChatOrder) -> None:
        self._tell("  plain words: an instruction about this frame; 240: TEXT is about frame 240")
        self._tell("  @N  let frames pass until frame N comes; @end: all of them")
        for verb, about in COMMANDS.items():
            self._tell(f"  :{verb} {about}")

    def _quit(self, order: ChatOrder) -> None:
        self.over = True

    def _answer(self, reply: Reply) -> None:
        self.playing = not reply.needs_choice
        boxes = [f"#{item.id} {_box(item.box)}" for item in reply.objects]
        if reply.text or boxes:
            self._tell("  " + "  ".join([part for part in (" ".join(reply.text.split()), *boxes) if part]))
        if reply.choice is not None:
            self._tell(picture_of_choice(reply.choice, self.playback.run.path))
            self._tell("  which one? 2, or x,y, or words; :play goes on with number 1")

    def _hear(self, event: EventRecord) -> None:
        if event.type not in QUIET:
            self._tell(event_line(event))


def _box(box: tuple[float, ...] | None) -> str:
    if box is None:
        return "not here"
    x1, y1, x2, y2 = box
    return f"{x1:.0f},{y1:.0f},{x2 - x1:.0f},{y2 - y1:.0f}"


def _refuse_order(text: str, open_choice: bool) -> None:
    r"""Refuse words that are a command without its colon, or a number where there is nothing to choose from.

    As words they would name a target that is nowhere; a leading backslash says them anyway.

    Raises:
        UsageError: see above.
    """
    verb, _, rest = text.casefold().partition(" ")
    orders = verb in COMMANDS and verb not in PROMPT_KINDS and (not rest or (verb in NUMBERED and rest.isdecimal()))
    if orders:
        raise UsageError(f"{text!r:.40}: did you mean :{text:.40}?")
    if text.isdecimal() and not open_choice:
        raise UsageError(f"{text!r:.40}: there is nothing to choose from; say in words what to follow")


def _of_kind(order: ChatOrder) -> Prompt:
    """Words, or ids where there are numbers alone."""
    parts = [part for part in order.text.replace(",", " ").split() if part]
    numbers = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    prompt = Prompt(kind=order.verb)  # type: ignore[arg-type]
    return replace(prompt, ids=numbers) if len(numbers) == len(parts) else replace(prompt, text=order.text)


class Lines(Protocol):
    """Where lines come from, and where what is told goes."""

    def take(self, wait: float | None) -> str | None:
        """The next line, waited for so many seconds, or until it comes; None where none came."""
        ...

    def tell(self, text: str) -> None:
        """Show a line."""
        ...

    def status(self, text: str) -> None:
        """Show where the playback is, in the place of what was shown before."""
        ...


class Piped:
    """Lines of a pipe or a file; each is waited for, and after the last one the rest of the frames is tracked."""

    def __init__(self) -> None:
        self._after = ["@end", ":quit"]

    def take(self, wait: float | None) -> str | None:
        """See `Lines`; frames pass only where a line waits for them."""
        return sys.stdin.readline() or self._after.pop(0)

    def tell(self, text: str) -> None:
        """See `Lines`."""
        print(text, flush=True)

    def status(self, text: str) -> None:
        """Nothing: it is not looked at."""


class Terminal:
    """Lines that are typed, in a thread; the line of progress is drawn above them without touching them."""

    def __init__(self) -> None:
        from rich.console import Console

        self._typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._console = Console(highlight=False)
        self._status = ""
        self._thread = threading.Thread(target=self._read, name="trackgpt-type", daemon=True)
        self._put("\n")
        self._thread.start()

    def _read(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401 - with it, `input` has history and a line that can be drawn again
        while True:
            try:
                line = input(PROMPT)
            except EOFError:
                line = ":quit"
            self._typed.put(line)
            if line.strip() == ":quit":
                return
            self._put("\n")

    def take(self, wait: float | None) -> str | None:
        """See `Lines`."""
        with suppress(queue.Empty):
            return self._typed.get(timeout=wait) if wait != 0 else self._typed.get_nowait()
        return None

    def tell(self, text: str) -> None:
        """See `Lines`: it goes above the line of progress, and the line that is being typed is drawn again."""
        self._put("\x1b[A\r\x1b[J")
        if "\x1b" in text:
            self._put(f"{text}\n")
        else:
            self._console.print(text, markup=False, style="red" if text.startswith("  !") else None)
        self._put(f"{self._status}\n{PROMPT}{_typed_so_far()}")

    def status(self, text: str) -> None:
        """See `Lines`: the cursor comes back to where it was."""
        self._status = text[: self._console.width - 1]
        self._put(f"\x1b7\x1b[A\r\x1b[2K{self._status}\x1b8")

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _typed_so_far() -> str:
    readline = sys.modules.get("readline")
    return "" if readline is None else str(readline.get_line_buffer())  # type: ignore[attr-defined]


def talk(dialogue: Dialogue, lines: Lines, outcome: RunSummary, paced: bool = False) -> None:
    """Take lines and track frames in turns until it is over.

    Args:
        dialogue: what the lines are said to.
        lines: where they come from.
        outcome: counts, kept while frames come.
        paced: frames come as fast as in the source, not faster.
    """
    session, total = dialogue.playback.session, dialogue.playback.source.frames_hint
    due = time.monotonic()
    while not dialogue.over:
        still = not dialogue.playing or not dialogue.playback.told
        if dialogue.until is None:
            line = lines.take(None if still else max(0.0, due - time.monotonic()))
            if line is not None:
                dialogue.hear(line)
                continue
        before = dialogue.last
        result = dialogue.advance()
        if result is None:
            if not dialogue.playing and session.frames:
                lines.status("the end: :undo, :seek N, :show or :quit")
            continue
        passed = 0.0 if before is None else max(0.0, result.time - before.time)
        due = max(due, time.monotonic() - 1.0) + (passed if paced else 0.0)
        lines.status(_progress(result, total))
        outcome.count(result.record)
        outcome.frames, outcome.rethinks, outcome.warnings = session.frames, session.rethinks, session.warnings
        outcome.found = session.found


def _progress(result: Result, total: int | None) -> str:
    minutes, seconds = divmod(result.time, 60)
    scores = [f"#{o.id} {'-' if o.score is None else format(o.score, '.2f')} {o.state}" for o in result.objects]
    length = f" / {total}" if total else ""
    return "  ".join([f"frame {result.index}{length}", f"{minutes:02.0f}:{seconds:04.1f}", *scores])


def chat(request: TrackRequest, outcome: RunSummary, live_policy: str) -> None:
    """Open the source and talk; afterwards every format that was asked for is made from the log.

    Raises:
        UsageError: there is no such policy; see also `trackgpt.app.tracking.track`.
    """
    from trackgpt.app.tracking import opened, written_request
    from trackgpt.export.exporting import check_formats
    from trackgpt.video.stream import StreamSource

    check_formats(request.formats)
    if live_policy not in ("latest", "every"):
        raise UsageError(f"--live-policy {live_policy}: choose latest or every")
    with ExitStack() as stack:
        playback = opened(request, [parse_instruction(text) for text in request.instructions], outcome, stack)
        if live_policy == "latest" and isinstance(playback.source, StreamSource):
            playback.source.leave_out_late()
        playback.describe(**written_request(request), chat=True)
        typed = sys.stdin.isatty() and sys.stdout.isatty()
        stack.enter_context(_terminal_as_it_was())
        lines: Lines = Terminal() if typed else Piped()
        dialogue = Dialogue(playback, lines.tell)
        stack.callback(_finish, request, playback)
        for text in request.instructions:
            dialogue.hear(text)
        if typed:
            lines.tell("  say what to follow; :help shows more")
        talk(dialogue, lines, outcome, typed and playback.source.rereadable)
        outcome.said = playback.session.prompts[-1].summary if playback.session.prompts else ""


def _finish(request: TrackRequest, playback: Playback) -> None:
    """The formats that were asked for, also when it was ended by Ctrl-C."""
    from trackgpt.export.davis import boxes_alone
    from trackgpt.export.records import read_tracks

    if not playback.session.frames:
        return
    formats = list(request.formats)
    if "mp4" in formats and not playback.source.rereadable:
        formats.remove("mp4")
        say("note: no video.mp4, since the source cannot be read again")
    if "davis" in formats and boxes_alone(read_tracks(playback.run.path)):
        formats.remove("davis")
    playback.export(playback.run.path, formats)


@contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """Give the terminal back as it was found: the thread that reads lines may be ended in the middle of one."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    was = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, was)


def run_chat(request: TrackRequest, live_policy: str) -> int:
    """Talk, and end stdout with one `key=value` line; gives the exit code."""
    from trackgpt.app.tracking import run

    return run(request, partial(chat, live_policy=live_policy))
