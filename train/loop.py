"""The training loop of all stages: load, forward, backward, step, log, save.

The same command starts it in one process, and under `torchrun` or `deepspeed` in several. A run that was stopped,
killed or crashed resumes from its newest complete checkpoint when it is started again.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from trackgpt.errors import InputError, OutOfMemoryError, TrackGPTError
from train.checkpoints import load_checkpoint, save_checkpoint
from train.engine import Engine, start_engine
from train.feed import Batch, batches, too_many
from train.monitor import Monitor
from train.plan import Plan, learning_rate
from train.precision import use_bf16
from train.processes import Processes
from train.stages import Stage

Export = Callable[[int, Engine], object]
Validate = Callable[[int], dict[str, float]]


class StoppedError(TrackGPTError):
    """A signal ended the run after a checkpoint; the exit code is the shell's for that signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def fit(
    stage: Stage, plan: Plan, folder: Path, processes: Processes, export: Export, validate: Validate | None = None
) -> int:
    """Train a stage, resuming from the newest checkpoint in `folder`; returns the step reached.

    Args:
        stage: samples, modules and losses.
        plan: the hyperparameters.
        folder: of the run; shared by all processes.
        processes: all of them must call this.
        export: called on every process after a checkpoint, with the step and the engine; rank 0 writes. It is called
            once more when a finished run is started again.
        validate: called on every process every `plan.validate_every` steps, with the step, in evaluation mode and with
            whole weights; its figures are averaged over the processes and logged as `val_...`.

    Raises:
        TrackGPTError: the loss or its gradient is not finite, or a sample cannot be made at all.
        InputError: too many samples are broken.
        OutputError: a checkpoint cannot be written.
        OutOfMemoryError: the GPU is too small for this plan.
        StoppedError: SIGTERM or SIGINT came; the run was saved.
        In every case the last checkpoint is intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bf16 = bool(processes.gather(use_bf16(plan.bf16, processes.device))[0])
    layout = {"processes": processes.size, "zero": plan.zero}
    engine = start_engine(stage, plan, processes, bf16)
    progress = load_checkpoint(folder, engine, layout, processes)
    start = progress.step
    if start >= plan.steps:
        export(start, engine)  # a run may have been killed between its last checkpoint and this
        return start
    feed = batches(stage, plan, processes, progress.samples)
    monitor = Monitor(folder, plan, processes, start, progress.window)
    with closing(feed), monitor, RunSignals() as signals:
        clock = RunClock(plan, processes)
        for step in range(start, plan.steps):
            rate = learning_rate(step, plan)
            broken = train_step(engine, feed, plan, processes, rate, monitor, f"{folder}: step {step}")

            progress.step = step + 1
            progress.samples += plan.batch * plan.accumulate * processes.size
            due = plan.validate_every and progress.step % plan.validate_every == 0
            monitor.step(progress.step, rate, validated(engine, validate, progress.step, processes) if due else {})

            votes = signals.came, clock.save_due(progress.step), clock.over(), len(broken)
            signalled, save, over, found = processes.sum(*votes)
            if found:
                progress.skipped += int(found)
                monitor.skipped(sum(processes.gather(broken), []))
            enough = too_many(progress.skipped, progress.samples, plan)
            done = progress.step == plan.steps
            if save or signalled or over or enough or done:
                progress.window = monitor.window.merged(processes)
                save_checkpoint(folder, engine, progress, layout, plan.keep, processes)
                export(progress.step, engine)
                clock.saved()
            if enough:
                raise InputError(
                    f"{folder}: {progress.skipped} of {progress.samples} samples are broken, more than "
                    f"plan.max_skipped={plan.max_skipped} allows; skipped.jsonl names them: mend the data or allow more"
                )
            if signalled and not done:
                raise StoppedError(
                    f"{folder}: {signals.name} at step {progress.step}; saved: run the same command to go on",
                    signals.number,
                )
            if over:
                break
    return progress.step


def train_step(
    engine: Engine, feed: Iterator[Batch], plan: Plan, processes: Processes, rate: float, monitor: Monitor, where: str
) -> list[dict[str, Any]]:
    """One update from `plan.accumulate` batches; returns the samples that were replaced, as lines.

    Raises:
        TrackGPTError: the loss or its gradient is not finite, on every process alike.
        OutOfMemoryError: the GPU is too small.
    """
    broken = []
    try:
        for _ in range(plan.accumulate):
            began = time.monotonic()
            batch = next(feed)
            monitor.waiting(time.monotonic() - began, len(batch.samples))
            broken += [skipped.line() for skipped in batch.skipped]
            learned = engine.forward(batch)
            _must_be_finite("loss", processes.mean(learned.total.item()), where)
            engine.backward(learned.total)
            monitor.window.add({name: value.item() for name, value in learned.losses.items()} | learned.figures)
        norm = engine.step(rate)
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{where}: the GPU's memory is full with plan.batch={plan.batch}; lower it and raise plan.accumulate, "
            "set plan.checkpointing=true, or raise plan.zero; --dry-run shows what takes how much"
        ) from error
    _must_be_finite("gradient's norm", norm, where)
    monitor.window.add({"grad": norm})
    return broken


def validated(engine: Engine, validate: Validate | None, step: int, processes: Processes) -> dict[str, float]:
    """Figures of the validation hook, each averaged over the processes that return it."""
    if validate is None:
        return {}
    with engine.inference():
        figures = validate(step)
    every = processes.gather(figures)
    names = sorted({name for one in every for name in one})
    known = {name: [one[name] for one in every if name in one] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items()}


def _must_be_finite(name: str, value: float, where: str) -> None:
    if not math.isfinite(value):
        raise TrackGPTError(f"{where}: the {name} is {value}; the last checkpoint is intact")


class RunClock:
    """When to save and when to stop, by rank 0's clock, because clocks differ and decisions must not."""

    def __init__(self, plan: Plan, processes: Processes) -> None:
        self.plan, self.decides = plan, processes.rank == 0
        self.began = self.last = time.monotonic()

    def save_due(self, step: int) -> bool:
        by_step = self.plan.save_every and step % self.plan.save_every == 0
        return self.decides and bool(by_step or time.monotonic() - self.last > self.plan.save_minutes * 60)

    def over(self) -> bool:
        passed = time.monotonic() - self.began
        return self.decides and bool(self.plan.minutes and passed > self.plan.minutes * 60)

    def saved(self) -> None:
        self.last = time.monotonic()


class RunSignals:
    """Records SIGTERM and SIGINT, so that the run ends after the step.

    Both may arrive twice at once, from the scheduler and from a launcher that forwards them; a second Ctrl-C more than
    a second later interrupts at once.
    """

    def __init__(self) -> None:
        self.number, self.came, self.at, self.before = int(signal.SIGTERM), False, 0.0, {}

    def __enter__(self) -> RunSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.came and time.monotonic() - self.at > 1:
            raise KeyboardInterrupt
        self.number, self.came, self.at = number, True, time.monotonic()
