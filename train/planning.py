"""`trackgpt plan CONFIG`: the memory that a training configuration and its model take, before anything is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.app.live import say
from trackgpt.errors import ModelError, UsageError
from trackgpt.planning.memory_plan import fitting, inference_table, table

if TYPE_CHECKING:
    from trackgpt.planning.memory_plan import Activations, Load
    from trackgpt.planning.outline import Outline

SETTINGS: dict[str, Any] = {
    "stage": "words",
    "brain": "",
    "segmenter": "",
    "frozen": [],
    "data.frames": 1,
    "data.turns": 3,
    "data.targets": 1,
    "data.own_answers": 0.0,
    "data.mask_loss": "grid",
    "data.cache": "",
    "shape.side": 128,
    "shape.frames": 3,
    "shape.targets": 2,
    "plan.batch": 32,
    "plan.bf16": None,
    "plan.checkpointing": False,
    "plan.zero": 0,
    "plan.offload": "none",
}
"""What is read of a training configuration, and what `python -m train` takes where it says nothing."""
WORDS = 64
STAGES = ("tracking", "words", "masks", "language", "join")
NEAR = 0.9
NEW_NANO = "nano"


def run(config: Path, overrides: list[str], memory: float, words: int, frame_size: str) -> int:
    """Print what a configuration takes.

    Args:
        config: a YAML file as `python -m train` reads it.
        overrides: dotted assignments.
        memory: GiB of a GPU.
        words: tokens of an instruction and its answer; 0 for `WORDS`, and in the foundation for what SynthTrack says.
        frame_size: "WIDTHxHEIGHT" in pixels, of frames at whose resolution masks are compared.

    Raises:
        UsageError: the file cannot be read, a setting or the size cannot be meant, or the stage cannot learn with the
            model.
        ModelError: see `trackgpt.planning.outline.outline_of`.
    """
    from trackgpt.planning.inference import Answering, plan_inference
    from trackgpt.session.ahead import AHEAD

    settings = read_settings(config, overrides)
    frame = frame_of(frame_size)
    outline = _outline(settings, (config,))
    bf16 = settings["plan.bf16"] is not False
    say(f"{outline.name}: {outline.source}")
    lessons, load, activations = _plan(settings, outline, bf16, words, frame)
    offload = settings["plan.offload"]
    print(f"{config}: {outline.name}, {outline.source}")
    print(f"learned: {load.trained:,} of {load.trained + load.frozen:,} parameters")
    print(f"\ntraining, {'bfloat16' if bf16 else 'float32'}, GiB on each GPU; {lessons}")
    print(
        f"activations {_gib(activations.plain)} kept, {_gib(activations.checkpointed)} with the language's redone "
        f"(plan.checkpointing); * fits in {memory:g} GiB"
    )
    if activations.compared:
        print(f"mask losses alone {_gib(activations.losses)}, counted in both; masks compared {activations.compared}")
    print(table(load, offload, activations, memory))
    print("\ninference, GiB")
    answers = plan_inference(outline, Answering(ahead=AHEAD))
    print(inference_table(answers, memory))
    kept = activations.checkpointed if settings["plan.checkpointing"] else activations.plain
    fits = fitting(load, offload, kept, memory)
    infers = [dtype for dtype, plan in answers.items() if plan.total <= memory * 2**30]
    print(
        f"learned={load.trained} memory={memory:g} training_fits={','.join(fits) or 'none'} "
        f"inference_fits={','.join(infers) or 'none'}"
    )
    return 0


def _plan(
    settings: dict[str, Any], outline: Outline, bf16: bool, words: int, frame: tuple[int, int]
) -> tuple[object, Load, Activations]:
    """A batch in words, what is held of the model and what a step holds beside it."""
    frozen, batch = settings["frozen"], settings["plan.batch"]
    if settings["stage"] != "tracking":
        from train.memory_foundation import Practice, plan_foundation

        side, frames, targets = (settings[f"shape.{name}"] for name in ("side", "frames", "targets"))
        practice = Practice(settings["stage"], batch, side, frames, targets, words)
        return practice, *plan_foundation(outline, practice, bf16, frozen)
    from trackgpt.planning.inference import Lessons, plan_training

    lessons = Lessons(
        batch=batch,
        frames=settings["data.frames"],
        turns=settings["data.turns"],
        targets=settings["data.targets"],
        words=words or WORDS,
        own=settings["data.own_answers"] > 0,
        cached=bool(settings["data.cache"]),
        frame=frame if settings["data.mask_loss"] == "original" else None,
    )
    return lessons, *plan_training(outline, lessons, bf16, frozen)


def read_settings(config: Path, overrides: list[str]) -> dict[str, Any]:
    """The settings of `SETTINGS` that a file and overrides make; others are the trainer's affair.

    Raises:
        UsageError: it cannot be read; a value is of another type; a name is nearly that of a setting.
    """
    from trackgpt.settings import read_values

    said = _flat(read_values(config, overrides))
    settings = dict(SETTINGS)
    for name, value in said.items():
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=NEAR)
        if near and near[0] != name and name.partition(".")[2] not in TRAINERS_OWN:
            raise UsageError(f"{config}: no setting `{name}`; did you mean `{near[0]}`?")
        if name in SETTINGS:
            settings[name] = _typed(value, SETTINGS[name], f"{config}: {name}")
    _check(settings, config)
    return settings


def frame_of(size: str) -> tuple[int, int]:
    """Height and width in pixels of a size as people write it, "1280x720".

    Raises:
        UsageError: it is no such thing.
    """
    if not (said := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)):
        raise UsageError(f"--frame-size: wanted WIDTHxHEIGHT in pixels such as 1280x720, found `{size}`")
    return int(said[2]), int(said[1])


COUNTS = ("data.frames", "data.turns", "data.targets", "shape.side", "shape.frames", "shape.targets", "plan.batch")
TRAINERS_OWN = ("beta2", "warmup", "steps")
"""Settings of the trainer whose names are near to one of these."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _typed(value: Any, default: Any, where: str) -> Any:
    wanted = type(default)
    if default is None or isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    if wanted is float and isinstance(value, int):
        return float(value)
    raise UsageError(f"{where}: wanted {wanted.__name__}, found {type(value).__name__} ({value!r})")


def _check(settings: dict[str, Any], config: Path) -> None:
    if settings["stage"] not in STAGES:
        raise UsageError(f"{config}: stage `{settings['stage']}` is not one of {', '.join(STAGES)}")
    for name in COUNTS:
        if settings[name] < 1:
            raise UsageError(f"{config}: {name}: wanted 1 or more, found {settings[name]}")
    for half in settings["frozen"]:
        if half not in ("brain", "segmenter"):
            raise UsageError(f"{config}: frozen: `{half}` is not a half of the model; choose brain or segmenter")
    if settings["data.mask_loss"] not in ("grid", "original"):
        raise UsageError(f"{config}: data.mask_loss: `{settings['data.mask_loss']}` is none of grid, original")
    if settings["plan.offload"] not in ("none", "optimizer", "parameters"):
        raise UsageError(f"{config}: plan.offload: `{settings['plan.offload']}` is none of none, optimizer, parameters")


def _outline(settings: dict[str, Any], passed: tuple[Path, ...]) -> Outline:
    """The model that would learn.

    Args:
        settings: of the last configuration of `passed`.
        passed: the configuration that was asked for, and those that lead from it to this one.
    """
    outline = _known(settings["brain"] or NEW_NANO, passed)
    if not settings["segmenter"]:
        return outline
    seen = _known(settings["segmenter"], passed)
    parts = (*outline.source.split("; "), *seen.source.split("; "))
    source = "; ".join(dict.fromkeys(parts))  # both halves often come from the same stage
    return replace(outline, config=replace(outline.config, perception=seen.config.perception), source=source)


def _known(name: str, passed: tuple[Path, ...]) -> Outline:
    """What is known of a model; one that an earlier stage has yet to make has the shapes of what that begins with."""
    from trackgpt.planning.outline import outline_of

    try:
        return outline_of(name)
    except ModelError as error:
        if not error.message.startswith("runs/"):
            raise
        earlier = _maker(name, passed)
        if earlier is None:
            advice = "no configuration beside this one makes it; name what it began with: brain=nano"
            raise ModelError(f"{error.message}; {advice}", error.code) from error
    begun = _outline(read_settings(earlier, []), (*passed, earlier))
    return replace(begun, source=f"{begun.source}; {name} is not there yet, {earlier.name} makes it")


def _maker(name: str, passed: tuple[Path, ...]) -> Path | None:
    """The configuration whose run makes a model: beside the first of `passed`, or in the folder `configs` it is in."""
    from trackgpt.settings import read_values

    place = passed[0].resolve()
    beside = place.parent.glob("*.yaml")
    others = (path for folder in place.parents if folder.name == "configs" for path in folder.rglob("*.yaml"))
    for path in sorted({*beside, *others}):
        if path not in passed and f"{read_values(path, []).get('out')}/model" == name:
            return path
    return None


def _gib(value: float) -> str:
    return f"{value / 2**30:.3f} GiB"
