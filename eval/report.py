"""What people read of a run: summary.json, report.md, and the pictures (see `eval.pictures`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.kit import Kit, Row, Tabulates, groups, interval, values, with_jf
from eval.pictures import draw
from eval.run_folder import commit, write_json, write_text
from eval.runner import RunResult, behaviour

DIGITS = {"spearman": 3, "ece": 3, "purport_spearman": 3, "purport_ece": 3, "NDE": 2, "NDE_sqrtarea": 2}
_BEHAVIOUR_TITLE = "How the tracker behaved (rates in percent, times in milliseconds per frame, this machine)"


def report(kit: Kit, result: RunResult, settings: Mapping[str, Any], out: Path) -> dict[str, float]:
    """Write everything that a run's rows say; returns the figures.

    Raises:
        OutputError: OUT02.
    """
    figures = kit.summarise(result.rows)
    behaved = behaviour(result.rows)
    run = {
        **settings,
        "protocol": kit.protocol,
        "commit": commit(),
        "tasks": result.tasks,
        "units": len(result.rows),
        "left_out": list(result.missing),
    }
    intervals = _intervals(kit, result.rows, figures)
    write_json(out / "summary.json", {"run": run, "figures": figures, "intervals": intervals, "behaviour": behaved})
    pictures = draw(result.rows, kit.headline[0], out)
    parts = [
        _head(kit, run),
        "\n".join(f"* {note}" for note in result.notes),
        _main_table(kit, figures, intervals),
        *(_breakdown(kit, result.rows, tag) for tag in _tags(result.rows)),
        *(kit.tables(result.rows) if isinstance(kit, Tabulates) else ()),
        _behaviour(behaved),
        "\n".join(f"![{path.stem}]({path.name})" for path in pictures if path.suffix == ".png"),
    ]
    write_text(out / "report.md", "\n\n".join(part for part in parts if part) + "\n")
    return figures


def last_line(kit: Kit, figures: Mapping[str, float], **more: object) -> str:
    """The line that ends a command's stdout: the kit's main figures, then anything else, as key=value."""
    main = [f"{name}={figures.get(name, float('nan')):.2f}" for name in kit.headline]
    return " ".join([*main, *(f"{key}={value}" for key, value in more.items())])


def _head(kit: Kit, run: Mapping[str, Any]) -> str:
    source = f"model {run['model']} ({run['model_sha256']})" if run.get("model") else f"results {run.get('results')}"
    shown = ("split", "variant", "dtype", "settings", "seed")
    more = "".join(f", {key} {run[key]}" for key in shown if run.get(key) not in (None, "", []))
    lines = [
        f"# {kit.name}: {source}{more}",
        "",
        f"{run['units']} units of {run['tasks']} tasks, commit {run['commit']}.",
    ]
    if run["left_out"]:
        lines += ["", f"**Partial: {len(run['left_out'])} of {run['tasks']} tasks have no results and are left out.**"]
    return "\n".join([*lines, "", kit.protocol])


def _intervals(kit: Kit, rows: Sequence[Row], figures: Mapping[str, float]) -> dict[str, list[float]]:
    """95 % intervals of the figures that are plain means over rows; of others it would be another number's."""
    out, whole = {}, _with_jf_rows(rows)
    for name, figure in figures.items():
        scale = 1.0 if name in kit.pixels else 100.0
        found = values(whole, name)
        low, high = interval(whole, name)
        if len(found) and abs(scale * found.mean() - figure) < 1e-9 and low == low:
            out[name] = [scale * low, scale * high]
    return out


def _with_jf_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows with their own J&F, so that its interval is that of one number per unit."""
    return [replace(row, figures=with_jf(dict(row.figures))) for row in rows]


def _main_table(kit: Kit, figures: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> str:
    """Our figures with their intervals, and columns of what papers print; nothing where there is no figure."""
    if not figures:
        return ""
    head = ["figure", "ours", "95 % interval", *(f"*{each.system}*" for each in kit.reported)]
    lines = [row_of(head), row_of(["---"] * len(head))]
    for name, value in figures.items():
        between = " to ".join(f"{end:.1f}" for end in intervals[name]) if name in intervals else ""
        printed = [_number(name, each.figures[name]) if name in each.figures else "" for each in kit.reported]
        lines.append(row_of([name, f"**{_number(name, value)}**", between, *printed]))
    sources = sorted({each.source for each in kit.reported})
    return "\n".join(
        [*lines, *([f"\n*Reported* columns are printed numbers: {'; '.join(sources)}."] if sources else [])]
    )


def _tags(rows: Sequence[Row]) -> list[str]:
    return sorted({tag for row in rows for tag in row.tags})


def _breakdown(kit: Kit, rows: Sequence[Row], tag: str) -> str:
    """The main figures by the values of a tag; nothing where all rows share one, or none has a figure."""
    found = {value: (mine, kit.summarise(mine)) for value, mine in groups(rows, tag).items()}
    if len(found) < 2 or not any(figures for _, figures in found.values()):
        return ""
    lines = []
    for value, (mine, figures) in found.items():
        lines.append([value, *(_number(n, figures[n]) if n in figures else "" for n in kit.headline), str(len(mine))])
    return table([tag, *kit.headline, "n"], lines)


def _behaviour(behaved: Mapping[str, float]) -> str:
    if not behaved:
        return ""
    return f"{_BEHAVIOUR_TITLE}:\n\n" + table(list(behaved), [[_number(k, v) for k, v in behaved.items()]])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join([row_of(head), row_of(["---"] * len(head)), *(row_of(line) for line in lines)])


def row_of(cells: Iterable[str]) -> str:
    """A line of a Markdown table; a bar within a cell would end it."""
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _number(name: str, value: float) -> str:
    return f"{value:.{DIGITS.get(name, 1)}f}"
