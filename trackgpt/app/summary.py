"""`trackgpt show`: a run in the terminal, from its log alone."""

from __future__ import annotations

from pathlib import Path

from trackgpt.export.records import read_events, read_tracks

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 72


def summarise(run: Path) -> str:
    """The instructions, answers and events of a run, and one line of purport score for each object.

    Raises:
        InputError: the folder holds no run, or a damaged one.
    """
    records = list(read_tracks(run))
    lines = [f"{run}: {len(records)} frames"]
    for event in read_events(run):
        if event.type in ("instruction", "answer", "rethink", "lost", "found", "warn", "error"):
            what = event.data.get("text", event.data.get("reason", ""))
            who = f" #{event.id}" if event.id is not None else ""
            lines.append(f"{event.index:6d}  {event.type}{who}  {what}")
    ids = sorted({o.id for record in records for o in record.objects})
    for number in ids:
        scores = [next((o.purport for o in r.objects if o.id == number and o.box), None) for r in records]
        lines.append(f"#{number} purport {sparkline(scores)}")
    return "\n".join(lines)


def sparkline(values: list[float | None]) -> str:
    """Values in [0, 1] as at most 72 bars, a dot where there is none."""
    step = max(1, -(-len(values) // WIDTH))
    out = []
    for i in range(0, len(values), step):
        known = [v for v in values[i : i + step] if v is not None]
        level = sum(known) / len(known) if known else None
        out.append("·" if level is None else BARS[min(7, int(max(0.0, level) * 8))])
    return "".join(out)
