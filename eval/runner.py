"""Runs a kit: tracks what is not tracked yet, scores result files, and gathers the rows of all tasks in order.

Work is shared by task: over the processes of `--jobs`, and over the ranks of `torchrun`, which must see one file
system. Rows are a function of result files alone and are merged in the benchmark's order, so the figures are those of
one process to the last bit, however many worked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.following import Following
from eval.kit import Kit, MissingResultError, Row
from eval.label_maps import soft_masks
from eval.run_folder import DIAGNOSTICS, ROWS, progress, rank, row_of, world_size, write_rows, write_text
from eval.trackers import Choice
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError
from trackgpt.online import Tracker

MOST = 5  # names in a message


@dataclass(frozen=True)
class Job:
    """What every process needs to know.

    Attributes:
        open_kit: makes the kit; called once per process, so that large lists are read there and never sent.
        results: folder of result files to score.
        out: the run's folder.
        choice: the tracker that writes the results; None scores what is there.
        baseline: name of one of the kit's baselines that writes them instead.
    """

    open_kit: Callable[[], Kit]
    results: Path
    out: Path
    choice: Choice | None = None
    baseline: str = ""


class Worker:
    """One process's share: its kit and its tracker, made once."""

    def __init__(self, job: Job) -> None:
        import cv2

        cv2.setNumThreads(1)  # the processes are the parallel part
        self.job, self.kit = job, job.open_kit()
        self.tracker: Tracker | None = None

    def __call__(self, task: str) -> list[Row] | None:
        """Track a task if that is wanted and not done, and score it; None if its results are missing."""
        self._track(task)
        soft_masks()  # those of an earlier task are none of this one's
        try:
            rows = self.kit.score(task, self.job.results)
        except MissingResultError:
            return None
        soft = soft_masks()
        if soft and rows:
            note = f"{soft}: any value but 0 counts as the object, as in the benchmark's script; write 0 and 255"
            rows = [replace(rows[0], said={**rows[0].said, "note": note}), *rows[1:]]
        path = diagnostics_path(self.job.out, task)
        try:
            return with_diagnostics(rows, read_object(path)) if path.exists() else rows
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: no diagnostics of {task} ({error!r}); delete it to track the task again"
            ) from error

    def _track(self, task: str) -> None:
        done = diagnostics_path(self.job.out, task)
        if (self.job.choice is None and not self.job.baseline) or done.exists():
            return
        records: dict[str, Any] = {}
        if self.job.baseline:
            self.kit.baselines[self.job.baseline](task, self.job.results)
        elif self.job.choice:
            self.tracker = self.tracker or self.job.choice.load()
            following = Following(self.tracker)
            self.kit.run(task, following, self.job.results)
            records = {unit: record.as_json() for unit, record in following.records.items()}
        write_text(done, json.dumps(records) + "\n")


def diagnostics_path(out: Path, task: str) -> Path:
    """Where a task's diagnostics are kept."""
    return out / DIAGNOSTICS / f"{task}.json"


def with_diagnostics(rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows with what was recorded of their units: the answer, scores, readings and times."""
    found = []
    for row in rows:
        record = records.get(row.unit)
        if record is None:
            found.append(row)
            continue
        figures = {
            **row.figures,
            "refused": float(record["refused"]),
            "rethinks": float(len(record["asked"])),
            "tracked_frames": float(len(record["seconds"])),
        }
        series = {**row.series, **{name: record[name] for name in ("score", "purport", "seconds") if name in record}}
        said = {"instruction": record["text"], "answer": record["answer"], **row.said}
        found.append(replace(row, figures=figures, series=series, said=said))
    return found


@dataclass(frozen=True)
class RunResult:
    """What a run gave: rows in the benchmark's order, tasks of the benchmark, and those without results."""

    rows: list[Row]
    tasks: int
    missing: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know of some units, a few with their names."""
        found = [f"{row.unit}: {row.said['note']}" for row in self.rows if "note" in row.said]
        return [*found[:MOST], *([f"{len(found) - MOST} more units have notes"] if len(found) > MOST else [])]


def run(job: Job, jobs: int = 1, limit: int = 0, partial: bool = False) -> RunResult | None:
    """All rows of a run; None on every rank but the first.

    Args:
        job: what is to be done.
        jobs: processes, on this rank.
        limit: only the first so many tasks; 0 means all.
        partial: leave out tasks without results, instead of refusing to score an incomplete folder.

    Raises:
        InputError: results or data are missing or malformed. What was tracked before stays and is not tracked again.
    """
    kit = job.open_kit()
    tasks = list(kit.tasks())[: limit or None]
    mine = tasks[rank() :: world_size()]
    found: dict[str, list[Row] | None] = {}
    with _together() as barrier:
        for task, rows in zip(mine, progress(_each(job, mine, jobs), kit.name, len(mine)), strict=True):
            found[task] = rows
        if world_size() > 1:
            found = _merged(job.out, found, barrier)
    if rank():
        return None
    missing = tuple(task for task in tasks if found.get(task) is None)
    if missing and not partial:
        raise InputError(_missing_text(job, kit, missing, len(tasks)))
    rows = [row for task in tasks for row in found.get(task) or ()]
    if not rows:
        raise InputError(f"{job.results}: none of {len(tasks)} tasks has results; wanted {kit.layout}")
    write_rows(job.out / ROWS, rows)
    return RunResult(rows, len(tasks), missing)


def _missing_text(job: Job, kit: Kit, missing: Sequence[str], tasks: int) -> str:
    names = ", ".join(missing[:MOST]) + (", ..." if len(missing) > MOST else "")
    return (
        f"{job.results}: no results for {len(missing)} of {tasks} tasks ({names}); wanted {kit.layout}; "
        "--partial scores the others and says so in the report"
    )


def _each(job: Job, tasks: Sequence[str], jobs: int) -> Iterator[list[Row] | None]:
    """Rows task by task, in the order given, however many processes work."""
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(Worker(job), tasks)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), _begin, (job,)) as pool:
        yield from pool.map(_work, tasks)


_worker: Worker | None = None


def _begin(job: Job) -> None:
    global _worker  # noqa: PLW0603 - a pool's initializer has no other way to hand on what it made
    _worker = Worker(job)


def _work(task: str) -> list[Row] | None:
    assert _worker is not None
    return _worker(task)


@contextmanager
def _together() -> Iterator[Callable[[], object]]:
    """A barrier over the ranks of `torchrun`."""
    if world_size() == 1:
        yield lambda: None
        return
    from datetime import timedelta

    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(days=7))  # ranks may differ by hours of tracking
    try:
        yield distributed.barrier
    finally:
        distributed.destroy_process_group()


def _merged(out: Path, found: Mapping[str, list[Row] | None], barrier: Callable[[], object]) -> dict[str, Any]:
    """The rows of all ranks' tasks, on the first one; each leaves its own in a file."""
    mine = {task: None if rows is None else [row.as_json() for row in rows] for task, rows in found.items()}
    write_text(out / f"rank{rank()}.json", json.dumps(mine) + "\n")
    barrier()
    merged: dict[str, Any] = {}
    if rank() == 0:
        for each in range(world_size()):
            path = out / f"rank{each}.json"
            if not path.exists():
                raise InputError(f"{path}: missing; all ranks must write to one file system")
            for task, rows in read_object(path).items():
                merged[task] = None if rows is None else [row_of(row, f"{path}: {task}") for row in rows]
            path.unlink()
    barrier()
    return merged


def behaviour(rows: Sequence[Row]) -> dict[str, float]:
    """How the tracker behaved, from diagnostics: calibration, readings, refusals, latency; empty without any.

    spearman, ece: score against true IoU over all frames of all units where both exist (10 bins); purport_spearman,
        purport_ece: the same of the purport score, where the score of a system is not that alone.
    rethink_rate, refusal_rate: percent of frames and of units. ms_median, ms_95: milliseconds per frame; first_ms: the
    median of first frames, on which the brain reads.
    """
    from eval.metrics.calibration import expected_calibration_error, spearman

    mine = [row for row in rows if "score" in row.series]
    if not mine:
        return {}
    scores, ious = scores_and_ious(mine)
    seconds = [np.asarray(row.series["seconds"], np.float64) for row in mine]
    later = np.concatenate([each[1:] for each in seconds]) if any(len(each) > 1 for each in seconds) else np.zeros(0)
    out = {
        "rethink_rate": 100 * sum(r.figures["rethinks"] for r in mine) / sum(r.figures["tracked_frames"] for r in mine),
        "refusal_rate": 100 * float(np.mean([row.figures["refused"] for row in mine])),
        "first_ms": 1e3 * float(np.median([each[0] for each in seconds])),
    }
    if len(later):
        out |= {"ms_median": 1e3 * float(np.median(later)), "ms_95": 1e3 * float(np.quantile(later, 0.95))}
    if len(scores) > 2:
        out |= {"spearman": spearman(scores, ious), "ece": expected_calibration_error(scores, ious)}
    purport, ious = scores_and_ious(mine, "purport")
    if len(purport) > 2 and not np.array_equal(purport, scores):
        found = {"spearman": spearman(purport, ious), "ece": expected_calibration_error(purport, ious)}
        out |= {f"purport_{name}": value for name, value in found.items()}
    return out


def scores_and_ious(rows: Sequence[Row], name: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """Scores and true IoUs, float64 (n,) each, of all frames that have both.

    Args:
        rows: of a run.
        name: of the series of scores.

    Raises:
        InputError: a unit has more scores than frames, so its diagnostics belong to other results.
    """
    pairs = []
    for row in rows:
        if name in row.series and "iou" in row.series:
            score, iou = (np.asarray(row.series[key], np.float64) for key in (name, "iou"))
            if len(score) != len(iou):
                raise InputError(f"{row.unit}: {len(score)} scores for {len(iou)} frames")
            pairs.append(np.stack([score, iou]))
    both = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0))
    both = both[:, np.isfinite(both).all(axis=0)]
    return both[0], both[1]
