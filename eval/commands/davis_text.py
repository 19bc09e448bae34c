"""`python -m eval davis-text`: referring expressions on real DAVIS sequences, resumable, with JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from eval.commands.synthtrack import (
    commit,
    model_digest,
    open_run,
    progress,
    read_lines,
    rewrite,
    write_json,
    write_text,
)
from eval.kits import davis_text as kit
from trackgpt.errors import UsageError


def command(
    root: Annotated[Path, typer.Option(help="DAVIS: JPEGImages/480p/SEQUENCE, Annotations/480p/SEQUENCE (or 240p)")],
    expressions: Annotated[Path, typer.Option(help="refvos's DAVIS17_RE_categorization.csv")],
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model")] = "nano",
    out: Annotated[Path, typer.Option(help="Folder for rows.jsonl, summary.json, report.md")] = Path("runs/davis-text"),
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many sequences; 0 means all")] = 0,
    resolution: Annotated[str, typer.Option(help="480p, 240p, or auto: the better one a sequence has")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Arithmetic threads")] = 1,
) -> None:
    """J&F of one expression an object on real DAVIS sequences (protocol "davis-text"; not Refer-DAVIS17)."""
    if resolution not in ("auto", *kit.RESOLUTIONS):
        raise UsageError(f"--resolution {resolution}: choose auto, {' or '.join(kit.RESOLUTIONS)}")
    said = kit.read_expressions(expressions)
    footage, left_out = kit.find_sequences(root, said, resolution)
    footage = footage[: limit or None]
    settings = {
        "protocol": "davis-text",
        "model": model,
        "model_sha256": model_digest(model),
        "root": str(root),
        "expressions": str(expressions),
        "resolution": resolution,
    }
    open_run(out, settings)
    _run_all(model, threads, footage, out)
    summary = report(out, settings, footage, left_out)
    typer.echo((out / "report.md").read_text())
    typer.echo(f"J&F={summary['J&F']:.2f} J={summary['J']:.2f} F={summary['F']:.2f} sequences={len(footage)}")


def _run_all(model: str, threads: int, footage: Sequence[kit.Footage], out: Path) -> None:
    rows = read_rows(out)
    rewrite(out / "rows.jsonl", (kit.as_json(row) for row in rows))
    done = {(row.sequence, row.object) for row in rows}
    todo = [(each, said) for each in footage for said in each.expressions if (each.name, said.object) not in done]
    if not todo:
        return
    import cv2
    import torch

    from trackgpt.hub import load_model

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    tracker = load_model(model).tracker()
    with (out / "rows.jsonl").open("a") as file:
        for each, group in groupby(progress(todo, "expressions", len(todo)), key=lambda pair: pair[0]):
            frames, labels = kit.load(each)
            for _, said in group:
                file.write(json.dumps(kit.as_json(kit.evaluate(each, said, frames, labels, tracker))) + "\n")
                file.flush()


def read_rows(out: Path) -> list[kit.Row]:
    """The rows written so far."""
    return [kit.from_json(values) for values in read_lines(out / "rows.jsonl")]


def report(
    out: Path, settings: Mapping[str, object], footage: Sequence[kit.Footage], left_out: Sequence[str]
) -> dict[str, float]:
    """Write summary.json and report.md from the rows of these sequences; returns the summary."""
    names = {each.name for each in footage}
    rows = [row for row in read_rows(out) if row.sequence in names]
    summary = kit.summarise(rows)
    sequences = {name: kit.summarise(group) for name, group in kit.by_sequence(rows)}
    run = {**settings, "left_out": list(left_out), "commit": commit()}
    write_json(out / "summary.json", {"run": run, "summary": summary, "sequences": sequences})
    lines = [
        f"Protocol davis-text: {summary['expressions']} expressions in {summary['sequences']} sequences, one binary"
        " mask an expression, all frames scored, mean over expressions, 95 % bootstrap interval over sequences.",
        "",
        "| sequence | size | expression | J&F | J | F | refused | rethinks | frames |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, group in kit.by_sequence(rows):
        lines += [_line(row) for row in group]
    lines.append(
        f"| **mean** | | | **{summary['J&F']:.1f}** ({summary['J&F_low']:.1f} to {summary['J&F_high']:.1f})"
        f" | {summary['J']:.1f} | {summary['F']:.1f} | {summary['refusal_rate']:.1f} % |"
        f" {summary['rethink_rate']:.1f} % | {summary['frames']} |"
    )
    if any(row.scores for row in rows):
        rank, error = summary["spearman"], summary["ece"]
        lines += ["", f"Purport score against IoU: Spearman {rank:.3f}, ECE {error:.3f} (10 bins)."]
    if left_out:
        more = f"; and {len(left_out) - 10} more (summary.json)" if len(left_out) > 10 else ""
        lines += ["", f"Left out: {'; '.join(left_out[:10])}{more}."]
    write_text(out / "report.md", "\n".join(lines) + "\n")
    return summary


def _line(row: kit.Row) -> str:
    return (
        f"| {row.sequence} | {row.resolution} | {row.text.replace('|', '/')} | {100 * row.jf:.1f} | {100 * row.j:.1f}"
        f" | {100 * row.f:.1f} | {'yes' if row.refused else 'no'} | {row.rethinks} | {row.frames} |"
    )
