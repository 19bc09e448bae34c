"""`python -m train CONFIG --dry-run`: parameters, memory and time of a run, from two steps that are thrown away."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from trackgpt.files import writing
from trackgpt.planning.memory_plan import GIB, load_of
from trackgpt.planning.outline import FROM_FILES, ModelOutline
from train.config import TrainConfig
from train.engine import Engine, parameter_groups, start_engine
from train.feed import batches
from train.loop import train_step
from train.memory import Activations, batch_size, plan_training, share, table, unused_bytes
from train.monitor import Monitor, peak_memory
from train.plan import Plan
from train.precision import use_bf16
from train.processes import Processes
from train.stages import STAGES, Stage
from train.supply import Supply, samples_per_second

STEPS = 2


def dry_run(stage: Stage, config: TrainConfig, out: Path, processes: Processes) -> str:
    """Build everything, take two steps that are thrown away, and report parameters, memory and time as text.

    The first batch is drawn to `out/dry_run/batch.png` where the stage has a `picture(samples)` that gives uint8 RGB
    (height, width, 3). Weights in memory change; nothing else is written.

    Raises:
        TrackGPTError: whatever the run itself would raise in its first steps.
    """
    plan = config.plan
    bf16 = use_bf16(plan.bf16, processes.device)
    activations = _activations(stage, config, bf16)
    before = peak_memory(processes)
    engine = start_engine(stage, plan, processes, bf16)
    load = load_of(engine.module.parameters())
    model = getattr(stage, "model", engine.module)
    load = replace(load, unused=unused_bytes(engine.module, model))
    parts = [
        f"arithmetic: {'bfloat16 autocast' if bf16 else 'float32'} on {processes.device}, {processes.size} process(es)",
        parameter_table(engine.module, plan.weight_decay),
        f"memory, GiB on each GPU\n{table(load, plan.offload, activations)}",
    ]
    drawn = _draw(stage, plan, out, processes)
    parts += [f"first batch: {drawn}" if drawn else "first batch: this stage draws no picture"]
    seconds, waited = _time(engine, stage, plan, processes)
    mine = plan.batch * plan.accumulate
    made = samples_per_second(stage, plan.seed, STEPS * mine * processes.size)
    supply = Supply(made, mine / (seconds - waited))
    held = peak_memory(processes)
    planned = share(load, plan.zero, processes.size, plan.offload)
    grown = planned.total - planned.weights
    kept = "activations not planned for this stage"
    if activations is not None:
        held_too = activations.checkpointed if plan.checkpointing else activations.plain
        grown = grown + held_too
        where = f", masks compared {activations.resolution}" if activations.resolution else ""
        kept = f"{held_too / GIB:.3f} of it activations of the largest batch{where}"
    what = "GPU" if processes.device.type == "cuda" else "this process, Python and libraries included"
    total = plan.batch * plan.accumulate * processes.size
    parts += [
        f"measured: peak {held:.2f} GiB ({what}), {max(0.0, held - before):.2f} GiB more than before the engine; "
        f"the plan says {planned.total / GIB:.3f} GiB, and {grown / GIB:.3f} more than the weights ({kept})",
        f"measured: {seconds:.2f} s per step of {total} samples, {total / seconds:.1f} samples/s, "
        f"{100 * waited / seconds:.0f} % of it waiting for samples",
        f"measured: {supply.text(plan)}",
        f"expected: {plan.steps} steps, {plan.steps * seconds / 3600:.2f} h (from the second of {STEPS} steps)",
    ]
    return "\n\n".join(parts)


def _activations(stage: Stage, config: TrainConfig, bf16: bool) -> Activations | None:
    """What `--plan` prints for the stage that a configuration names; None for any other."""
    if not isinstance(stage, STAGES.get(config.stage, ())) or config.stage in ("memory", "box"):
        return None
    model = stage.model
    outline = ModelOutline(model.config.name, model.config, FROM_FILES)
    return plan_training(outline, config, batch_size(config, outline), bf16)[1]


def parameter_table(module: nn.Module, weight_decay: float) -> str:
    """Parameters by part and group: tensors, parameters, whether they learn, dtype. Shared ones count once."""
    group_of = {id(p): group["name"] for group in parameter_groups(module, weight_decay) for p in group["params"]}
    rows: dict[tuple[str, str, str], list[int]] = {}
    for name, parameter in module.named_parameters():
        key = (_part(name), group_of.get(id(parameter), "frozen"), str(parameter.dtype).removeprefix("torch."))
        row = rows.setdefault(key, [0, 0])
        row[0] += 1
        row[1] += getattr(parameter, "ds_numel", parameter.numel())
    lines = [f"{'part':<42}{'group':<20}{'tensors':>8}{'parameters':>16}  dtype"]
    lines += [f"{part:<42}{group:<20}{n:>8}{count:>16,}  {dtype}" for (part, group, dtype), (n, count) in rows.items()]
    learned = sum(count for (_, group, _), (_, count) in rows.items() if group != "frozen")
    every = sum(count for _, count in rows.values())
    return "\n".join([*lines, f"learned: {learned:,} of {every:,} parameters"])


def _part(name: str) -> str:
    """`parts.0.brain.llava.model.language_model.layers.3...` to `brain.llava.model.language_model`."""
    words = name.split(".")[2:-1]
    deep = 4 if words[:2] == ["brain", "llava"] else 2
    return ".".join(word for word in words[:deep] if not word.isdigit()) or "stage"


def _draw(stage: Stage, plan: Plan, out: Path, processes: Processes) -> Path | None:
    picture: Any = getattr(stage, "picture", None)
    if picture is None or processes.rank != 0:
        return None
    batch = next(batches(stage, replace(plan, workers=0), processes, count=1))
    path = out / "dry_run" / "batch.png"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(batch.samples)).save(path)
    return path


def _time(engine: Engine, stage: Stage, plan: Plan, processes: Processes) -> tuple[float, float]:
    """Seconds of the last of two steps, and of waiting in it; a workers' start is in the first."""
    silent = replace(plan, tensorboard=False, wandb="", log_every=10**9, steps=STEPS)
    feed = batches(stage, plan, processes, count=STEPS * plan.accumulate)
    scratch = Path(tempfile.mkdtemp())
    try:
        with closing(feed), Monitor(scratch, silent, processes, 0, {}) as monitor:
            for step in range(STEPS):
                began, monitor.waited = time.monotonic(), 0.0
                train_step(engine, feed, plan, processes, plan.lr, monitor, f"dry run, step {step}")
            return time.monotonic() - began, monitor.waited
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
