"""Batches for the loop: sample i of a run is a function of (seed, i) alone, whichever process makes it.

Batch k of a run holds the samples k * batch, ...; the processes take the batches in turn. Hence one process that
accumulates two batches and two processes with one each see the same batches, and a resumed run continues with the
samples it would have seen.

A sample that cannot be made (`InputError`: a truncated picture, an expression without its object) is replaced by the
next one that can, and both are named in `skipped.jsonl`. Anything else a stage raises stops the run.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from trackgpt.errors import InputError, TrackGPTError
from train.plan import SEED_STRIDE, Plan
from train.processes import Processes
from train.stages import Stage

TRIES = 100
FEWEST = 1000


@dataclass(frozen=True)
class Skipped:
    """A broken sample: its index in the run, the index of the one that took its place, and what was wrong."""

    index: int
    replaced_by: int
    reason: str

    def line(self) -> dict[str, Any]:
        """As a line of `skipped.jsonl`."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """A batch of one process.

    Attributes:
        seed: of everything drawn in the forward pass (dropout, noise): a function of its first sample.
        samples: as `Stage.sample` made them.
        skipped: those that had to be replaced.
    """

    seed: int
    samples: list[Any]
    skipped: list[Skipped]


def batches(
    stage: Stage, plan: Plan, processes: Processes, done: int = 0, count: int | None = None
) -> Generator[Batch, None, None]:
    """This process's batches after `done` samples of the run, made by worker processes, in order; close it after use.

    Args:
        stage: makes the samples.
        plan: batch, seed, workers; steps and accumulate say how many batches there are.
        processes: the processes that take turns.
        done: samples the run has seen, over all processes.
        count: batches this process needs; by default all the rest of the run.

    Raises:
        InputError: too many consecutive samples are broken.
        TrackGPTError: a stage raised something else, or a worker died; the message names the sample.
    """
    # Here and not in the workers: OpenCV's threads do not live on in a fork, where setting their number waits for them.
    cv2.setNumThreads(1)
    left = plan.steps * plan.accumulate - done // (plan.batch * processes.size) if count is None else count
    loader: DataLoader[Any] = DataLoader(
        _Share(stage, plan, processes, done, max(0, left)),
        batch_size=plan.batch,
        shuffle=False,
        num_workers=plan.workers,
        collate_fn=_as_it_is,
        worker_init_fn=_begin_worker,
        prefetch_factor=4 if plan.workers else None,
    )
    return _checked(iter(loader), plan, processes, done)


def too_many(skipped: int, seen: int, plan: Plan) -> bool:
    """Whether more than the share `max_skipped` of the samples, taken as at least 1,000, is broken."""
    return skipped > plan.max_skipped * max(seen, FEWEST)


def _checked(made: Any, plan: Plan, processes: Processes, done: int) -> Generator[Batch, None, None]:
    first = done + processes.rank * plan.batch
    try:
        for items in made:
            for item in items:
                if item.error is not None:
                    raise item.error
            skipped = [item.skipped for item in items if item.skipped]
            yield Batch(plan.seed * SEED_STRIDE + first, [item.sample for item in items], skipped)
            first += plan.batch * processes.size
    except RuntimeError as error:  # the workers themselves raise nothing
        raise TrackGPTError(
            f"a worker process died while it made samples from {first} on ({_one_line(error)}); "
            "if memory ran out choose fewer plan.workers"
        ) from error
    finally:
        _end_workers(made)


def _end_workers(made: Any) -> None:
    """Kill the workers now: at exit Python would wait for ever, because they ignore SIGTERM."""
    if isinstance(made, _MultiProcessingDataLoaderIter):
        made._shutdown_workers()
        for worker in made._workers:
            worker.kill()


@dataclass
class _Made:
    sample: Any = None
    skipped: Skipped | None = None
    error: TrackGPTError | None = None


class _Share(Dataset[Any]):
    """The samples of one process, counted from 0."""

    def __init__(self, stage: Stage, plan: Plan, processes: Processes, done: int, batches: int) -> None:
        self.stage, self.plan, self.processes, self.done, self.count = (
            stage,
            plan,
            processes,
            done,
            batches * plan.batch,
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> _Made:
        batch, place = divmod(i, self.plan.batch)
        index = self.done + (batch * self.processes.size + self.processes.rank) * self.plan.batch + place
        return make(self.stage, self.plan.seed, index)


def make(stage: Stage, seed: int, index: int) -> _Made:
    """Sample `index` of a run, or the next good one; errors are returned, so that they cross processes in one line."""
    reasons: list[str] = []
    for there in range(index, index + TRIES):
        try:
            sample = stage.sample(seed * SEED_STRIDE + there)
        except InputError as error:
            reasons.append(_one_line(error))
            continue
        except TrackGPTError as error:
            return _Made(error=type(error)(f"sample {there}: {_one_line(error)}"))
        except Exception as error:
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            where = f" at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else ""
            return _Made(error=TrackGPTError(f"sample {there}: {type(error).__name__}: {_one_line(error)}{where}"))
        return _Made(sample, Skipped(index, there, reasons[0]) if reasons else None)
    return _Made(error=InputError(f"{TRIES} samples from {index} on are all broken; the first: {reasons[0]}"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _as_it_is(samples: list[Any]) -> list[Any]:
    return samples


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A scheduler that ends a job signals all its processes; the training process still needs this one's samples.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
