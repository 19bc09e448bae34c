"""`python -m train CONFIG --plan`: memory of training and of the trained model, before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from trackgpt.errors import ModelError, UsageError
from trackgpt.planning.inference import Answering, plan_inference
from trackgpt.planning.memory_plan import GIB, inference_table
from trackgpt.planning.outline import ModelOutline, outline_of
from trackgpt.session.ahead import AHEAD
from trackgpt.settings import read, read_values
from train.config import TRL_STAGES, TrainConfig
from train.enlarge import with_tower
from train.memory import batch_size, fitting, plan_training, table
from train.nano import BRAIN_SIDE
from train.stages import stage_class


def memory_report(path: Path, config: TrainConfig, memory: float, words: int, frame_size: str) -> str:
    """Memory per ZeRO stage and number of GPUs, and of inference per dtype; the last line is key=value.

    Args:
        path: the file that `config` was read from; an earlier stage's configuration is looked for in its folder.
        config: of the run.
        memory: GiB of a GPU.
        words: tokens of an instruction and its answer; 0 for the stage's usual number.
        frame_size: "WIDTHxHEIGHT" in pixels of the videos, read for `data.mask_loss: original` alone.

    Raises:
        UsageError: a number or the size is invalid, or the stage cannot learn with the model.
        ModelError: see `trackgpt.planning.outline.outline_of`.
    """
    plan = config.plan
    if not 0 <= memory <= 1e6:  # NaN is refused
        raise UsageError(f"--memory: wanted 0 to 1,000,000 GiB, found {memory:g}")
    if not 0 <= words <= 10**6:
        raise UsageError(f"--words: wanted 0 to 1,000,000 tokens, found {words}")
    if config.stage in TRL_STAGES:
        raise UsageError(f"--plan knows the stages of TrackGPT; the stage {config.stage} has no plan yet")
    stage_class(config.stage)
    if config.stage in ("memory", "box", "seeing", "pointing"):
        raise UsageError(f"--plan does not know the stage {config.stage}; --dry-run measures it")
    outline = outline_for(config, path)
    bf16 = plan.bf16 is not False
    size = batch_size(config, outline, words, parse_size(frame_size))
    load, activations = plan_training(outline, config, size, bf16)
    answers = plan_inference(outline, Answering(ahead=AHEAD))
    kept = activations.checkpointed if plan.checkpointing else activations.plain
    fits = fitting(load, plan.offload, kept, memory)
    infers = [dtype for dtype, needed in answers.items() if needed.total <= memory * GIB]
    lines = [
        f"{path}: {outline.name}, {outline.source}",
        f"learned: {load.trained:,} of {load.trained + load.frozen:,} parameters",
        f"\ntraining, {'bfloat16' if bf16 else 'float32'}, GiB on each GPU; {size}",
        f"activations {_gib(activations.plain)} kept, {_gib(activations.checkpointed)} with the language model's "
        f"recomputed (plan.checkpointing); * fits in {memory:g} GiB",
    ]
    if activations.losses:
        losses = f"mask losses alone {_gib(activations.losses)}, counted in both"
        lines.append(f"{losses}; masks compared {activations.resolution}")
    return "\n".join(
        [
            *lines,
            table(load, plan.offload, activations, memory),
            "\ninference, GiB",
            inference_table(answers, memory),
            f"learned={load.trained} memory={memory:g} training_fits={','.join(fits) or 'none'} "
            f"inference_fits={','.join(infers) or 'none'}",
        ]
    )


def parse_size(size: str) -> tuple[int, int]:
    """Height and width in pixels of a size written as "1280x720".

    Raises:
        UsageError: it is written otherwise.
    """
    if not (said := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)):
        raise UsageError(f"--frame-size: wanted WIDTHxHEIGHT in pixels such as 1280x720, found `{size}`")
    return int(said[2]), int(said[1])


def outline_for(config: TrainConfig, *paths: Path) -> ModelOutline:
    """The model that a configuration trains.

    Args:
        config: read from the last of `paths`.
        paths: the configuration that was asked for, and those that lead from it to this one.
    """
    outline = _outline(config.brain, paths) if config.brain else _new_nano()
    if config.tower.side:
        outline = replace(outline, config=with_tower(outline.config, config.tower.side, config.tower.merging))
    if not config.perception:
        return outline
    perception = _outline(config.perception, paths)
    sources = (*outline.source.split("; "), *perception.source.split("; "))
    merged = replace(outline.config, perception=perception.config.perception)
    return replace(outline, config=merged, source="; ".join(dict.fromkeys(sources)))


def _new_nano() -> ModelOutline:
    """What a run begins with that names no model, see `train.nano.nano_config`."""
    shipped = outline_of("nano")
    return replace(shipped, config=with_tower(shipped.config, BRAIN_SIDE, 0))


def _outline(name: str, paths: tuple[Path, ...]) -> ModelOutline:
    """A model by name; one that an earlier stage has yet to make has the shapes of what that stage starts from."""
    try:
        return outline_of(name)
    except ModelError as error:
        if not error.message.startswith("runs/"):
            raise
        earlier = _maker(name, paths)
        if earlier is None:
            advice = "no configuration in its folder or under configs/ makes it; name what it began with: brain=nano"
            raise ModelError(f"{error.message}; {advice}", error.code) from error
    begun = outline_for(read(TrainConfig, earlier), *paths, earlier)
    return replace(begun, source=f"{begun.source}; {name} is not there yet, {earlier.name} makes it")


def _maker(name: str, paths: tuple[Path, ...]) -> Path | None:
    """The configuration whose run makes a model: in the folder of the first of `paths`, or under its `configs`."""
    first, *_ = known = [path.resolve() for path in paths]
    others = (path for folder in first.parents if folder.name == "configs" for path in folder.rglob("*.yaml"))
    for path in sorted({*first.parent.glob("*.yaml"), *others}):
        if path not in known and f"{read_values(path).get('out')}/model" == name:
            return path
    return None


def _gib(value: float) -> str:
    return f"{value / GIB:.3f} GiB"
