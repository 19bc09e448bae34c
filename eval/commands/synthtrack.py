"""`python -m eval synthtrack`: run, save rows as they come, resume, and report as JSON and Markdown."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from eval.kits import synthtrack as kit
from trackgpt.errors import TrackGPTError, UsageError

LABELS = ("explicit", "implicit", "multi", "J&F", "none_right", "wrongly_refused", "spearman", "ece", "rethink_rate")


def command(
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model")] = "nano",
    seed: Annotated[int, typer.Option(help="Chooses the test videos")] = 1,
    videos: Annotated[int, typer.Option(help="How many test videos")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for rows.jsonl, summary.json, report.md")] = Path("runs/synthtrack"),
    variants: Annotated[str, typer.Option(help="Comma-separated: " + ", ".join(kit.VARIANTS))] = ",".join(kit.VARIANTS),
    split: Annotated[str, typer.Option(help="test, or train for choosing settings without touching test")] = "test",
    jobs: Annotated[int, typer.Option(help="Processes; each takes every n-th video")] = 1,
    threads: Annotated[int, typer.Option(help="Arithmetic threads a process")] = 1,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Loop setting, e.g. --set cooldown=3")] = None,
) -> None:
    """J&F of a model on held-out SynthTrack videos, with ablations and baselines on the same frames."""
    try:
        wanted = _variants(variants)
        out.mkdir(parents=True, exist_ok=True)
        _run_all(model, seed, videos, out, wanted, split, jobs, threads, set_ or [])
        summary = report(out, model, seed, videos, wanted, split, set_ or [])
    except TrackGPTError as error:
        typer.echo(f"eval: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    full = summary[wanted[0]]
    typer.echo((out / "report.md").read_text())
    typer.echo(f"J&F={full['J&F']:.2f} J={full['J']:.2f} F={full['F']:.2f} videos={videos} out={out}")


def _variants(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in kit.VARIANTS:
            raise UsageError(f"--variants: `{name}` is not one of {', '.join(kit.VARIANTS)}")
    return wanted


def _run_all(
    model: str,
    seed: int,
    videos: int,
    out: Path,
    wanted: list[str],
    split: str,
    jobs: int,
    threads: int,
    sets: list[str],
) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rich.progress import track

    done = {(row.video, row.variant) for row in read_rows(out)}
    todo = [i for i in range(videos) if any((i, v) not in done for v in wanted)]
    with (out / "rows.jsonl").open("a") as file:
        settings = (model, seed, split, wanted, threads, sets)
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=settings) as pool:
            results = pool.map(_one_video, todo)
            for rows in track(results, "videos", total=len(todo), disable=not sys.stderr.isatty()):
                for row in rows:
                    if (row.video, row.variant) not in done:
                        file.write(json.dumps(kit.as_json(row)) + "\n")
                file.flush()


_WORK: dict[str, object] = {}


def _begin(model: str, seed: int, split: str, wanted: list[str], threads: int, sets: list[str]) -> None:
    import cv2
    import torch

    from trackgpt.config import RethinkConfig, read
    from trackgpt.hub import load_model

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    loaded = load_model(model) if any(v != "random-object" for v in wanted) else None
    if loaded is not None:
        base = [f"{k}={v}" for k, v in dataclasses.asdict(loaded.config.rethink).items()]
        loaded.config.rethink = read(RethinkConfig, None, base + sets)
    _WORK.update(model=loaded, seed=seed, split=split, wanted=wanted)


def _one_video(video: int) -> list[kit.Row]:
    from trackgpt.data.synthtrack.clips import make_case

    seed, wanted = _WORK["seed"], _WORK["wanted"]
    case = make_case(seed * 10_000 + video, str(_WORK["split"]), kit.FRAMES, kit.LONGEST)  # type: ignore[operator]
    rows: list[kit.Row] = []
    for variant in wanted:  # type: ignore[attr-defined]
        if variant == "random-object":
            rows += kit.random_object(video, case)
        else:
            rows += kit.evaluate_case(video, case, _tracker(variant), variant)
    return rows


def _tracker(variant: str) -> kit.Tracker:
    from trackgpt.arbiter import PurportArbiter

    model = _WORK["model"]
    model.segmenter.mask_decoder.propagate = variant in ("full", "no-rethinking")  # type: ignore[attr-defined]
    tracker = model.tracker()  # type: ignore[attr-defined]
    if variant in ("no-rethinking", "first-frame"):
        tracker.arbiter = PurportArbiter(dataclasses.replace(tracker.arbiter.config, enabled=False, search_every=10**9))
    return tracker  # type: ignore[no-any-return]


def read_rows(out: Path) -> list[kit.Row]:
    """The rows written so far; a last line that was cut off by a kill is dropped."""
    path = out / "rows.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(kit.from_json(json.loads(line)))
        except json.JSONDecodeError:
            continue
    return rows


def report(
    out: Path, model: str, seed: int, videos: int, wanted: list[str], split: str, sets: list[str]
) -> dict[str, dict[str, float]]:
    """Write summary.json and report.md from the rows; returns the summary per variant."""
    rows = [row for row in read_rows(out) if row.video < videos]
    summary = {variant: kit.summarise(rows, variant) for variant in wanted}
    protocol = {
        "protocol": "synthtrack",
        "model": model,
        "split": split,
        "seed": seed,
        "videos": videos,
        "settings": sets,
        "commit": commit(),
    }
    (out / "summary.json").write_text(json.dumps({"run": protocol, "summary": summary}, indent=2) + "\n")
    lines = ["| variant | " + " | ".join(LABELS) + " |", "|---" * (len(LABELS) + 1) + "|"]
    for variant in wanted:
        lines.append(f"| {variant} | " + " | ".join(_cells(summary[variant])) + " |")
    for key in ("difficulty", "form"):
        lines += ["", f"J&F of `{wanted[0]}` by {key}:", "", f"| kind/{key} | J&F | n |", "|---|---|---|"]
        lines += [f"| {name} | {value:.1f} | {n} |" for name, (value, n) in kit.breakdown(rows, wanted[0], key).items()]
    (out / "report.md").write_text("\n".join(lines) + "\n")
    return summary


def _cells(figures: dict[str, float]) -> list[str]:
    cells = []
    for key in LABELS:
        digits = 3 if key in ("spearman", "ece") else 1
        cells.append(f"{figures[key]:.{digits}f}" if key in figures else "-")
    return cells


def commit() -> str:
    """The commit this code stands on, with a mark when files differ from it; "unknown" outside a repository."""
    root = Path(__file__).parents[2]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
