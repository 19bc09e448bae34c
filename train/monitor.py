"""Logging of a run: the terminal, `train.jsonl`, TensorBoard, Weights & Biases. Rank 0 alone writes.

A line of the log is the mean of all steps since the last line, over all processes:

    step minutes lr         where the run is (minutes of this start)
    the stage's losses and figures, `grad` (norm before clipping)
    rate                    samples per second, all processes together
    wait                    share of the time spent waiting for samples; near 1: the workers are too slow
    memory                  peak GiB of rank 0 so far: of its GPU, else resident
    val_...                 what the validation hook returned at this step
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trackgpt.errors import OutputError, UsageError
from trackgpt.files import writing
from train.plan import Plan
from train.processes import Processes

LOG = "train.jsonl"
SKIPPED = "skipped.jsonl"


class Window:
    """Sums and counts of figures since the last line of the log."""

    def __init__(self, sums: dict[str, list[float]]) -> None:
        self.sums = {name: list(pair) for name, pair in sums.items()}

    def add(self, figures: dict[str, float]) -> None:
        """Count each figure once more."""
        for name, value in figures.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1

    def merged(self, processes: Processes) -> dict[str, list[float]]:
        """Sums and counts over all processes, which must all call this."""
        total = Window({})
        for sums in processes.gather(self.sums):
            for name, (value, count) in sums.items():
                pair = total.sums.setdefault(name, [0.0, 0])
                pair[0] += value
                pair[1] += count
        return total.sums


class Monitor:
    """Collects figures step by step and logs their means every `plan.log_every` steps."""

    def __init__(
        self, folder: Path, plan: Plan, processes: Processes, step: int, window: dict[str, list[float]]
    ) -> None:
        self.folder, self.plan, self.processes = folder, plan, processes
        # What was not yet logged when the checkpoint was written counts once, not once per process.
        self.window = Window(window if processes.rank == 0 else {})
        self.began = self.since = time.monotonic()
        self.seen, self.waited = 0, 0.0
        self.loggers = run_loggers(folder, plan, step) if processes.rank == 0 else []

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: Any) -> None:
        for logger in self.loggers:
            logger.close()

    @property
    def minutes(self) -> float:
        """Since this process began."""
        return (time.monotonic() - self.began) / 60

    def waiting(self, seconds: float, samples: int) -> None:
        """Count a batch of this process: its number of samples, and the seconds waited for it."""
        self.waited += seconds
        self.seen += samples

    def step(self, step: int, rate: float, validated: dict[str, float]) -> None:
        """Log after a step, where a line is due; all processes must call this."""
        figures = {f"val_{name}": value for name, value in validated.items()}
        if step % self.plan.log_every == 0:
            figures = self._means() | figures
        if figures and self.loggers:
            place = {"step": step, "minutes": round(self.minutes, 2), "lr": rate}
            line = place | {name: float(f"{value:.6g}") for name, value in figures.items()}
            for logger in self.loggers:
                logger.log(line)

    def skipped(self, lines: list[dict[str, Any]]) -> None:
        """Append broken samples to `skipped.jsonl`."""
        if self.loggers and lines:
            _append(self.folder / SKIPPED, "".join(json.dumps(line) + "\n" for line in lines))

    def _means(self) -> dict[str, float]:
        sums, now = self.window.merged(self.processes), time.monotonic()
        passed = max(now - self.since, 1e-9)
        waited, seen = self.processes.sum(self.waited, self.seen)
        means = {name: total / count for name, (total, count) in sums.items()}
        means |= {
            "rate": seen / passed,
            "wait": waited / passed / self.processes.size,
            "memory": peak_memory(self.processes),
        }
        self.window, self.since, self.seen, self.waited = Window({}), now, 0, 0.0
        return means


def peak_memory(processes: Processes) -> float:
    """Peak GiB of this process: on its GPU, or resident."""
    if processes.device.type == "cuda":
        return torch.cuda.max_memory_allocated(processes.device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def run_loggers(folder: Path, plan: Plan, step: int) -> list[Any]:
    """What takes the lines of a run's log, each with `log(line)` and `close()`; for rank 0 alone."""
    loggers: list[Any] = [_Lines(folder / LOG), _Terminal(plan, step)]
    if plan.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass  # an extra; the log holds the same
        else:
            with writing(folder / "tensorboard"):
                loggers.append(_TensorBoard(SummaryWriter(str(folder / "tensorboard"), purge_step=step)))
    if plan.wandb:
        loggers.append(_Wandb(folder, plan))
    return loggers


class _Lines:
    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            _append(path, "\n")  # a kill left half a line

    def log(self, line: dict[str, float]) -> None:
        _append(self.path, json.dumps(line) + "\n")

    def close(self) -> None:
        pass


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; make room; the last checkpoint is intact", "OUT02") from error


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, line: dict[str, float]) -> None:
        for name, value in line.items():
            if name != "step":
                self.writer.add_scalar(name, value, int(line["step"]))

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, folder: Path, plan: Plan) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UsageError(f"plan.wandb={plan.wandb} needs wandb ({error}); pip install 'trackgpt[wandb]'") from error
        # The same folder is the same run there, also after a restart.
        name = "-".join(folder.resolve().parts[-3:])
        self.run = wandb.init(project=plan.wandb, dir=str(folder), id=name, name=name, resume="allow")

    def log(self, line: dict[str, float]) -> None:
        self.run.log(line, step=int(line["step"]))

    def close(self) -> None:
        self.run.finish()


class _Terminal:
    """A progress bar on a terminal, lines in a file."""

    def __init__(self, plan: Plan, step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.steps, self.first, self.began = plan.steps, step, time.monotonic()
        self.bar = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=plan.steps, completed=step)
        self.bar.start()

    def log(self, line: dict[str, float]) -> None:
        step = int(line["step"])
        shown = " ".join(f"{k} {v:.4g}" for k, v in line.items() if k not in ("step", "minutes"))
        self.bar.update(self.task, completed=step, description=shown)
        if not self.console.is_terminal:
            each = (time.monotonic() - self.began) / max(1, step - self.first)
            left = each * (self.steps - step) / 60
            print(f"step {step}/{self.steps} left {left:.1f} min {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.stop()
