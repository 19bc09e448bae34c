"""`trackgpt show`: a run in the terminal, from its log alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from trackgpt.export.prompts import prompt_of
from trackgpt.export.records import EventRecord, TrackRecord, read_events, read_tracks

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 72
MOST_EVENTS = 40
SHOWN = ("instruction", "answer", "choice", "rethink", "revise", "lost", "found", "undo", "take", "warn", "error")


def summarise(run: Path) -> str:
    """Counts, the words and events of a run, and one line of scores for each object.

    Raises:
        InputError: the folder holds no run, or a damaged one.
    """
    records, events = list(read_tracks(run)), list(read_events(run))
    counts = Counter(event.type for event in events)
    ended = "complete" if counts["done"] else "cut short"
    told = _counted("frame", len(records)), _counted("rethink", counts["rethink"]), _counted("warning", counts["warn"])
    lines = [f"{run}: {', '.join(told)}, {ended}"]
    shown = [event for event in events if event.type in SHOWN and not _is_no_answer(event)]
    lines += [event_line(event) for event in shown[:MOST_EVENTS]]
    if len(shown) > MOST_EVENTS:
        lines.append(f"        and {len(shown) - MOST_EVENTS} more in events.jsonl")
    return "\n".join(lines + _objects(records))


def _counted(noun: str, count: int) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is_no_answer(event: EventRecord) -> bool:
    """What is pointed at is followed without a word."""
    return event.type == "answer" and not event.data["text"]


def event_line(event: EventRecord) -> str:
    """What happened, for people: the frame, the type, the target, the words."""
    what = str(event.data.get("text", event.data.get("reason", "")))
    if event.type == "instruction":
        prompt = prompt_of(event)
        what = f"{prompt.said} ({prompt.kind} {prompt.text})" if prompt.said else prompt.summary
    if event.type == "take":
        what = f"take {event.take} goes on from take {event.data['parent']}"
    if event.type == "revise":
        what = f"frames {event.data['first']} to {event.data['last']} are amended: {event.data['verdict']}"
    if event.type == "rethink":
        what += f"  score {_numbers(event.data['old'])} -> {_numbers(event.data['new'])}"
    who = f" #{event.id}" if event.id is not None else ""
    code = f"{event.data['code']}: " if "code" in event.data else ""
    return f"{event.index:6d}  {event.type + who:14s}{code}{what}".rstrip()


def _numbers(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(f"{v:.2f}" if isinstance(v, int | float) else "none" for v in values) or "none"


def _objects(records: list[TrackRecord]) -> list[str]:
    """A line per object: the mean score, on how many frames it was seen, and the score over time."""
    lines = []
    for number in sorted({item.id for record in records for item in record.objects}):
        scores = [next((o.score for o in r.objects if o.id == number and o.box), None) for r in records]
        known = [score for score in scores if score is not None]
        mean = f"{sum(known) / len(known):.2f}" if known else "none"
        lines.append(f"#{number}  score {mean} on {len(known)} of {len(records)} frames")
        lines.append(f"    {sparkline(scores)}")
    return lines


def sparkline(values: list[float | None]) -> str:
    """Values in [0, 1] as at most 72 bars, a dot where there is none."""
    step = max(1, -(-len(values) // WIDTH))
    out = []
    for i in range(0, len(values), step):
        known = [v for v in values[i : i + step] if v is not None]
        level = sum(known) / len(known) if known else None
        out.append("·" if level is None else BARS[min(7, int(max(0.0, level) * 8))])
    return "".join(out)
