"""`python -m eval synthtrack`: run, save rows as they come, resume, and report as JSON and Markdown."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eval.kits import synthtrack as kit
from trackgpt.errors import UsageError

if TYPE_CHECKING:
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.types import Tracker

LABELS = (
    "explicit",
    "implicit",
    "multi",
    "J&F",
    "none_right",
    "wrongly_refused",
    "answers_right",
    "spearman",
    "ece",
    "rethink_rate",
)


@dataclass(frozen=True)
class Job:
    """What every worker process needs to know; the options of `command`."""

    model: str
    seed: int
    split: str
    wanted: tuple[str, ...]
    threads: int = 1
    sets: tuple[str, ...] = ()


def command(
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model")] = "nano",
    seed: Annotated[int, typer.Option(help="Chooses the test videos")] = 1,
    videos: Annotated[int, typer.Option(min=1, max=10_000, help="How many test videos")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for rows.jsonl, summary.json, report.md")] = Path("runs/synthtrack"),
    variants: Annotated[str, typer.Option(help="Comma-separated: " + ", ".join(kit.VARIANTS))] = ",".join(kit.VARIANTS),
    split: Annotated[str, typer.Option(help="test, or train for choosing settings without touching test")] = "test",
    jobs: Annotated[int, typer.Option(min=1, help="Processes; the rows are those of one")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Arithmetic threads a process")] = 1,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Loop setting, e.g. --set cooldown=3")] = None,
) -> None:
    """J&F of a model on held-out SynthTrack videos, with ablations and baselines on the same frames."""
    job = Job(model, seed, split, _variants(variants), threads, tuple(set_ or ()))
    needs_model = any(variant != "random-object" for variant in job.wanted)
    settings = {
        "protocol": "synthtrack",
        "model": model,
        "model_sha256": model_digest(model) if needs_model else "",
        "split": split,
        "seed": seed,
        "settings": list(job.sets),
    }
    open_run(out, settings)
    _run_all(job, videos, out, jobs)
    summary = report(out, settings, videos, job.wanted)
    full = summary[job.wanted[0]]
    typer.echo((out / "report.md").read_text())
    figures = " ".join(f"{key}={full.get(key, float('nan')):.2f}" for key in ("J&F", "J", "F"))
    typer.echo(f"{figures} videos={videos} out={out}")


def _variants(text: str) -> tuple[str, ...]:
    wanted = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in wanted or ("",):
        if name not in kit.VARIANTS:
            raise UsageError(f"--variants: `{name}` is not one of {', '.join(kit.VARIANTS)}")
    return wanted


def _run_all(job: Job, videos: int, out: Path, jobs: int) -> None:
    done = {(row.video, row.variant) for row in _whole_rows(out)}
    todo = [i for i in range(videos) if any((i, variant) not in done for variant in job.wanted)]
    with (out / "rows.jsonl").open("a") as file:
        for rows in progress(_results(job, todo, jobs), "videos", len(todo)):
            for row in rows:
                if (row.video, row.variant) not in done:
                    file.write(json.dumps(kit.as_json(row)) + "\n")
            file.flush()


def _whole_rows(out: Path) -> list[kit.Row]:
    """The rows of finished videos; those of a video that a kill cut short are taken out of the file.

    The rows of a video and variant stand together, so only the last ones of the file can be too few. They are dropped
    whether or not they are: a file that ends with a whole line looks the same.
    """
    rows = read_rows(out)
    if rows:
        last = (rows[-1].video, rows[-1].variant)
        rows = [row for row in rows if (row.video, row.variant) != last]
    rewrite(out / "rows.jsonl", (kit.as_json(row) for row in rows))
    return rows


def _results(job: Job, todo: list[int], jobs: int) -> Iterator[list[kit.Row]]:
    """Rows video by video, in the order of `todo` however many processes work."""
    if jobs == 1:
        yield from map(partial(_one_video, job), todo)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(partial(_one_video, job), todo)


def _one_video(job: Job, video: int) -> list[kit.Row]:
    import cv2

    cv2.setNumThreads(1)
    case = kit.video_case(job.seed, video, job.split)
    rows: list[kit.Row] = []
    for variant in job.wanted:
        if variant == "random-object":
            rows += kit.random_object(video, case)
        else:
            rows += kit.evaluate_case(video, case, variant_tracker(_model(job), variant), variant)
    return rows


@lru_cache(maxsize=1)
def _model(job: Job) -> TrackGPT:
    """The job's model, once a process."""
    import torch

    from trackgpt.config import RethinkConfig, read
    from trackgpt.hub import load_model

    torch.set_num_threads(job.threads)
    model = load_model(job.model)
    base = [f"{key}={value}" for key, value in dataclasses.asdict(model.config.rethink).items()]
    model.config.rethink = read(RethinkConfig, None, base + list(job.sets))
    return model


def variant_tracker(model: TrackGPT, variant: str) -> Tracker:
    """A fresh tracker of a variant (see `eval.kits.synthtrack`); it holds until the next one is made from the model."""
    from trackgpt.arbiter import PurportArbiter

    trained = model.config.perception.decoder.propagate
    model.segmenter.mask_decoder.propagate = trained and variant in ("full", "no-rethinking")
    tracker = model.tracker()
    if variant in ("no-rethinking", "first-frame"):
        tracker.arbiter = PurportArbiter(dataclasses.replace(tracker.arbiter.config, enabled=False, search_every=10**9))
    return tracker


def read_rows(out: Path) -> list[kit.Row]:
    """The rows written so far."""
    return [kit.from_json(values) for values in read_lines(out / "rows.jsonl")]


def report(
    out: Path, settings: Mapping[str, object], videos: int, wanted: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Write summary.json and report.md from the rows; returns the summary per variant."""
    rows = [row for row in read_rows(out) if row.video < videos]
    summary = {variant: kit.summarise(rows, variant) for variant in wanted}
    write_json(out / "summary.json", {"run": {**settings, "videos": videos, "commit": commit()}, "summary": summary})
    lines = ["| variant | " + " | ".join(LABELS) + " |", "|---" * (len(LABELS) + 1) + "|"]
    for variant in wanted:
        lines.append(f"| {variant} | " + " | ".join(_cells(summary[variant])) + " |")
    for key in ("difficulty", "form"):
        lines += ["", f"J&F of `{wanted[0]}` by {key}:", "", f"| kind/{key} | J&F | n |", "|---|---|---|"]
        lines += [f"| {name} | {value:.1f} | {n} |" for name, (value, n) in kit.breakdown(rows, wanted[0], key).items()]
    write_text(out / "report.md", "\n".join(lines) + "\n")
    return summary


def _cells(figures: dict[str, float]) -> list[str]:
    cells = []
    for key in LABELS:
        digits = 3 if key in ("spearman", "ece") else 1
        cells.append(f"{figures[key]:.{digits}f}" if key in figures else "-")
    return cells


# What every kit's command needs of a run folder.


def open_run(out: Path, settings: Mapping[str, object]) -> None:
    """Make the folder of a run, or see that the one there was begun with the same settings.

    Rows of another model or seed under this one's name would be a wrong number that looks right.

    Raises:
        UsageError: the folder holds rows of other settings.
        OutputError: OUT02.
    """
    from trackgpt.export.records import writing

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    other = [f"{key} {found.get(key)!r}, now {value!r}" for key, value in settings.items() if found.get(key) != value]
    if other and (out / "rows.jsonl").exists():
        raise UsageError(f"{out}: holds rows of another run ({'; '.join(other)}); choose another --out or delete it")
    write_json(path, settings)


def model_digest(name: str) -> str:
    """The first 12 digits of the SHA-256 over a model's files: a name alone does not say which weights it had.

    Raises:
        ModelError: MD01, there is no such model.
    """
    from trackgpt.hub import find

    digest = hashlib.sha256()
    for path in sorted(path for path in find(name).iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, none if it is missing; a line that a kill cut off is passed over."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def rewrite(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON Lines file anew, so that what is appended begins on a line of its own."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write indented JSON, numbers that are not finite as null."""
    from trackgpt.export.records import plain

    write_text(path, json.dumps(plain(values), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    from trackgpt.export.records import write_whole

    write_whole(path, [text])


def progress(results: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """The results with a progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(results, what, total, console=Console(stderr=True), disable=not sys.stderr.isatty())


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
