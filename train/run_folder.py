"""The folder of a run: made, locked against a second run, and of one configuration for as long as the run lasts.

What a run would replace, beside neither `stage.json` nor a whole checkpoint, was made by no run and is left alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError, OutputError, TrackGPTError, UsageError
from trackgpt.files import refuse_strangers, replacing, writing
from trackgpt.settings import read_json, to_dict, write_json
from train.checkpoints import FOLDER as CHECKPOINTS
from train.checkpoints import whole_checkpoints
from train.config import MAY_CHANGE, TrainConfig
from train.monitor import LOG, SKIPPED
from train.processes import Processes

LOCK = ".lock"
STAGE = "stage.json"
MODEL = "model"
MADE = (MODEL, f"{MODEL}.old", f"{MODEL}.tmp", CHECKPOINTS, LOG, SKIPPED, "curves.png", "previews", "tensorboard")
"""What a run writes to its folder and replaces there, after `stage.json`."""


@contextmanager
def claimed(out: Path, config: TrainConfig, processes: Processes) -> Iterator[None]:
    """Own a run's folder; every process calls this, rank 0 acts. The lock ends with the process, however it ends.

    Raises:
        OutputError: OUT01, it holds what no run has made; OUT02, it cannot be written.
        UsageError: another process trains into it, or it holds a run of another configuration.
        InputError: its `stage.json` is damaged.
    """
    locks: list[int] = []

    def claim() -> None:
        _refuse_strangers(out)
        locks.append(_locked(out))
        _must_be_the_same_run(out, config)
        with replacing(out / STAGE) as part:
            write_json(config, part)

    try:
        _first(processes, claim)
        yield
    finally:
        for lock in locks:
            os.close(lock)


def must_be_free(out: Path, processes: Processes) -> None:
    """Refuse a folder that a run could not be written to; every process calls this, rank 0 looks.

    Raises:
        OutputError: OUT01, it holds what no run has made; OUT02, it cannot be looked into.
    """
    _first(processes, lambda: _refuse_strangers(out))


def _first(processes: Processes, act: Callable[[], object]) -> None:
    """Act on rank 0; what it refuses is raised on every process."""
    refusal = None
    if processes.rank == 0:
        try:
            act()
        except TrackGPTError as error:
            refusal = error
    refusal = processes.gather(refusal)[0]
    if refusal is not None:
        raise refusal


def _refuse_strangers(out: Path) -> None:
    if not has_checkpoints(out):  # a run whose damaged stage.json was deleted goes on
        refuse_strangers(out, MADE, (STAGE,), "no run of this trainer made it")


def has_checkpoints(out: Path) -> bool:
    """A run could go on from here, by whichever loop trains it."""
    return bool(whole_checkpoints(out) or trl_checkpoints(out))


def trl_checkpoints(out: Path) -> list[Path]:
    """Checkpoints of a run that TRL trains, the oldest first: those to which the trainer's state was written, the last
    of their files.
    """
    found = [place.parent for place in (out / CHECKPOINTS).glob("checkpoint-*/trainer_state.json")]
    return sorted(found, key=lambda place: int(place.name.rpartition("-")[2]))


def _locked(out: Path) -> int:
    """The open lock file. A record lock: worker processes do not inherit it, and network file systems know it."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            owner = os.read(lock, 100).decode(errors="replace").strip()
            os.close(lock)
            raise UsageError(
                f"{out}: {owner or 'another process'} trains into it; wait, or choose another `out`"
            ) from error
        # A file system without locks: two runs at once are the user's to avoid.
    with writing(out / LOCK):
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} of {os.uname().nodename}\n".encode())
    return lock


def _must_be_the_same_run(out: Path, config: TrainConfig) -> None:
    file = out / STAGE
    if not os.path.lexists(file):
        return
    try:
        before = _decisive(read_json(file))
    except (TrackGPTError, TypeError, KeyError) as error:
        raise InputError(f"{file}: damaged; delete it if {out} holds a run of this configuration") from error
    if not {"stage", "plan.seed"} <= before.keys():
        raise OutputError(f"{file}: is no configuration of a run; choose another `out`", "OUT01")
    if not (has_checkpoints(out) or (out / MODEL).exists()):
        return
    now = _decisive(json.loads(json.dumps(to_dict(config))))
    for name, value in now.items():
        if name in before and before[name] != value:
            raise UsageError(
                f"{out}: holds a run with {name}={json.dumps(before[name])}, this one has {json.dumps(value)}; "
                "go on as it was, or choose another `out`"
            )


def _decisive(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings that decide the numbers of a run, by dotted name. Batches that add up to the same step are the same."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = above + key
        if name in MAY_CHANGE:
            continue
        if isinstance(value, dict) and value:
            found |= _decisive(value, f"{name}.")
        else:
            found[name] = value
    if "plan.batch" in found:
        found["plan.batch*accumulate"] = found.pop("plan.batch") * found.pop("plan.accumulate")
    return found
