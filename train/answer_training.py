"""The stages that TRL trains: a vision-language model learns to answer, first by imitation, then by what answers earn.

TRL's trainers have the loop, the optimiser and the checkpoints (`SFTTrainer`; `train.grpo.TAPOTrainer`). From here come
the samples, the rewards, the log, and the folder of the run, which is laid out as every other one is:

    out/checkpoints/checkpoint-120/    TRL's, to go on from; the newest whole one is taken
    out/train.jsonl, curves.png        TRL's figures and those of `train.grpo.TAPOTrainer`, `reward/TERM` for every term
    out/previews/000120.jsonl          answers of the last batch with what they earned
    out/model/                         the model as its hub has it, adapters merged

What is asked, and what an answer earns, is an `AnswerTask`: of a policy that tracks (`train.policy_training`), of a
describer (`train.describer_training`). Several processes, of `torchrun`, each hold the whole model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, TrainerCallback
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from trackgpt.errors import OutOfMemoryError, TrackGPTError, UsageError
from trackgpt.files import writing
from trackgpt.hub import find
from trackgpt.reasoners.brain_weights import load_vlm
from trackgpt.reasoners.conv_tower import ConvTower
from train.checkpoints import replace_folder, together
from train.config import AnswerTraining, TrainConfig
from train.grpo import TAPOConfig, TAPOTrainer
from train.loop import RunClock, RunSignals, StoppedError
from train.model_folder import CARD, RECORD, card, copy_beside, exported_step, training_record
from train.monitor import run_loggers
from train.plan import Plan
from train.precision import use_bf16
from train.processes import Processes
from train.report import draw_curves
from train.run_folder import CHECKPOINTS, MODEL, trl_checkpoints

LORA_LAYERS = r".*(language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
VISION = ("vision_tower", "visual", "vision_model")
"""Names of the vision tower in transformers' models."""
GENERATION = "generation_config.json"
SHOWN = 8
"""Answers of a preview."""
LOGGED = (
    *("loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy"),
    *("completions/mean_length", "completions/clipped_ratio", "clip_ratio/region_mean", "mean_token_accuracy"),
)
"""What is kept of TRL's figures, beside all of "reward/" and "tapo/"; each is a plot in curves.png."""


class AnswerRow(Protocol):
    """One question with images.

    Attributes:
        asked: its own words, for people.
    """

    @property
    def asked(self) -> str: ...

    def prompt(self) -> list[dict[str, Any]]:
        """The conversation that puts the question; its images are placeholders."""
        ...

    def completion(self) -> str:
        """The answer that is right."""
        ...

    def pictures(self) -> list[Image.Image]:
        """The images, in the order of their placeholders."""
        ...


@dataclass(frozen=True)
class AnswerTask:
    """What a model learns to answer.

    Attributes:
        model: of transformers, on the CPU.
        processor: the model's own.
        rows: the questions; one may be made when it is asked for.
        judge: of answers, each with its question, what each earns: "reward", and every term of it by name.
        read_by: how the trained model is read, for its card.
    """

    model: Any
    processor: Any
    rows: Sequence[Any]
    judge: Callable[[Sequence[str], Sequence[Any]], list[dict[str, float]]]
    read_by: str


OpenTask = Callable[[TrainConfig], Callable[[Path, torch.dtype], AnswerTask]]
"""Checks settings and reads data; gives what makes the task of a model's folder and the type of its weights."""


def by_imitation(config: TrainConfig) -> bool:
    """Whether a stage shows right answers, and pays for none."""
    return config.stage.endswith("sft")


def join_for_trl(device: str) -> Processes:
    """The processes of a run as TRL forms them: of `torchrun`, with NCCL on GPUs and Gloo on CPUs, or one alone.

    Args:
        device: "auto", "cpu" or "cuda".
    """
    from accelerate import PartialState

    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    os.environ.setdefault("DS_ACCELERATOR", kind)  # accelerate imports DeepSpeed where it is installed
    if kind == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # without it every process would train alone
    state = PartialState(cpu=kind == "cpu")
    return Processes(state.device, state.process_index, state.num_processes)


def train_answers(config: TrainConfig, out: Path, processes: Processes, open_task: OpenTask) -> int:
    """Train a model to answer, going on from the newest checkpoint in `out`; returns the step reached.

    Args:
        config: of one of `train.config.TRL_STAGES`.
        out: the run's folder.
        processes: all of them must call this.
        open_task: of the stage.

    Raises:
        UsageError: settings do not fit one another.
        InputError: the data cannot be read.
        ModelError: the model cannot.
        TrackGPTError: the loss is not finite.
        StoppedError: SIGTERM or SIGINT came; the run was saved.
    """
    load = open_task(config)  # data are read before the model
    folder = _must_fit(config, processes.size)
    begun = trl_checkpoints(out)
    done = int(begun[-1].name.rpartition("-")[2]) if begun else 0
    if done >= config.plan.steps and exported_step(out / MODEL) == done:
        return done
    if config.threads:
        torch.set_num_threads(config.threads)
    disable_progress_bar()  # of loading and writing; the run has one of its own
    lora = config.answers.lora
    bf16 = use_bf16(config.plan.bf16, processes.device)
    task = load(folder, torch.bfloat16 if bf16 and lora else torch.float32)
    # Where the reference of `beta` and the adapters' base are looked for.
    task.model.config._name_or_path = task.model.name_or_path = str(folder)
    if not config.answers.vision:
        _hold(_vision(task.model))
    if begun and not lora:
        _restore(task.model, begun[-1])
    reward = AnswerReward(task)
    with warnings.catch_warnings(), RunSignals() as signals:
        warnings.simplefilter("ignore", FutureWarning)  # TRL calls what transformers renames within version 5
        trainer = _trainer(config, _shared_settings(config.plan, out, processes, bf16), task, reward)
        run = RunCallback(config, out, processes, signals, None if by_imitation(config) else reward)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(run)
        if not lora:
            trainer._load_from_checkpoint = _already_restored
        if done < config.plan.steps:
            done = _fit(trainer, run, begun, f"{out}: plan.batch={config.plan.batch}", config.answers_name)
        else:  # it was ended before its model was written
            trainer._load_from_checkpoint(str(begun[-1]))
        if signals.came and done < config.plan.steps:
            raise StoppedError(
                f"{out}: {signals.name} at step {done}; saved: run the same command to go on", signals.number
            )
        _export(config, trainer, folder, out, done, processes, task.read_by)
    return done


def _must_fit(config: TrainConfig, processes: int) -> Path:
    """Refuse settings that do not fit one another; the folder of the model to start from."""
    plan, part = config.plan, config.answers_name
    answers = plan.batch * plan.accumulate * processes
    if not by_imitation(config) and answers % config.answers.group:
        raise UsageError(
            f"{part}.group={config.answers.group}: plan.batch * plan.accumulate * processes is {answers}; "
            "wanted a multiple"
        )
    if plan.zero:
        raise UsageError(f"plan.zero={plan.zero}: the stage {config.stage} shards nothing; wanted 0; try {part}.lora")
    if plan.loss_weights:
        raise UsageError(f"plan.loss_weights: the stage {config.stage} has one loss; see {part}.reward_weights")
    if not config.brain:
        raise UsageError(f"brain: the stage {config.stage} wants a vision-language model to start from")
    return find(config.brain)


def _hold(tower: Any) -> None:
    """Keep a vision tower as it is: it learns nothing, and what normalises by batches in it does so as in use.

    What nano's tower gave for an image is kept, for it is asked again: answers of a group are about the same images,
    and each is read when it is generated, scored and learned from.
    """
    tower.requires_grad_(False)
    tower.register_forward_pre_hook(_as_in_use)
    if isinstance(tower, ConvTower):
        tower.forward = KeptTokens(tower.forward)


class KeptTokens:
    """A vision tower's forward that computes every image once, as far as its tokens are still there.

    Args:
        forward: pixels (b, 3, s, s) to an output whose only hidden state is the last one, (b, tokens, channels).
        most: images whose tokens are kept; the ones that were computed first go first.
    """

    def __init__(self, forward: Callable[..., BaseModelOutputWithPooling], most: int = 20_000) -> None:
        self.forward, self.most = forward, most
        self.kept: dict[bytes, torch.Tensor] = {}

    def __call__(self, pixel_values: torch.Tensor, **how: Any) -> BaseModelOutputWithPooling:
        """See the class."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in _bytes_of(pixel_values)]
        new = {key: row for row, key in enumerate(keys) if key not in self.kept}
        found = {key: self.kept[key] for key in keys if key not in new}
        if new:
            with torch.no_grad():
                tokens = self.forward(pixel_values[list(new.values())], **how).last_hidden_state
            found |= dict(zip(new, tokens, strict=True))
            self.kept |= {key: found[key] for key in new}
            while len(self.kept) > self.most:
                del self.kept[next(iter(self.kept))]
        together = torch.stack([found[key] for key in keys])
        return BaseModelOutputWithPooling(last_hidden_state=together, pooler_output=None, hidden_states=(together,))


def _bytes_of(pixels: torch.Tensor) -> np.ndarray:
    """Images (b, ...) of any type as bytes (b, n)."""
    return pixels.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()


def _as_in_use(module: Any, _: Any) -> None:
    """Before each forward, for TRL's trainers put the whole model in training mode."""
    module.eval()


def _vision(model: Any) -> Any:
    """The vision tower of a model.

    Raises:
        UsageError: it has none that is known.
    """
    for name in VISION:
        if (tower := getattr(model.model, name, None)) is not None:
            return tower
    raise UsageError(f"vision=false: {type(model).__name__} has none of {', '.join(VISION)}; leave it true")


def _restore(model: Any, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint.

    transformers' trainer looks for a model's names in it. A checkpoint has those of the hub, others for Qwen's models,
    so that it finds few, warns, and goes on from the first weights.
    """
    model.load_state_dict(load_vlm(checkpoint, model.dtype)[0].state_dict())


def _already_restored(*_: Any, **__: Any) -> None:
    """In the place of `transformers.Trainer._load_from_checkpoint`, see `_restore`."""


def _fit(trainer: Any, run: RunCallback, begun: Sequence[Path], where: str, part: str) -> int:
    """Train from the newest checkpoint on; gives the step reached."""
    with closing(run):
        try:
            trainer.train(resume_from_checkpoint=str(begun[-1]) if begun else None)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{where}: the GPU's memory is full; lower plan.batch and raise plan.accumulate, lower "
                f"{part}.tokens, set plan.checkpointing=true, or {part}.lora=64"
            ) from error
    return int(trainer.state.global_step)


class AnswerReward:
    """TRL's reward function: what each answer earns, by the number of its row. Logs the mean of every term.

    Attributes:
        last: answers of the last batch with what they earned, as JSON would have them.
    """

    def __init__(self, task: AnswerTask) -> None:
        self.task = task
        self.last: list[dict[str, Any]] = []
        self.__name__ = "answer"

    def __call__(self, completions: list[Any], number: list[int], log_metric: Any = None, **_: Any) -> list[float]:
        said = [each[0]["content"] for each in completions]
        once = {place: self.task.rows[place] for place in set(number)}
        rows = [once[place] for place in number]
        earned = self.task.judge(said, rows)
        self.last = [
            {"row": place, "asked": row.asked, "answer": text, **found}
            for place, row, text, found in zip(number, rows, said, earned, strict=True)
        ]
        for name in (name for name in earned[0] if name != "reward" and log_metric):
            log_metric(f"reward/{name}", sum(found[name] for found in earned) / len(earned))
        return [found["reward"] for found in earned]


def row_set(rows: Sequence[AnswerRow], completions: bool) -> Dataset:
    """Rows as TRL reads them, by number; each is looked at when it is asked for."""
    return Dataset.from_dict({"number": list(range(len(rows)))}).with_transform(_RowReader(rows, completions))


class _RowReader:
    """Numbers of rows to what TRL wants of them.

    Args:
        rows: all of them.
        completions: with the right answers.
    """

    def __init__(self, rows: Sequence[AnswerRow], completions: bool) -> None:
        self.rows, self.completions = rows, completions

    def __call__(self, batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        asked = [self.rows[number] for number in batch["number"]]
        made: dict[str, list[Any]] = {
            "number": batch["number"],
            "prompt": [row.prompt() for row in asked],
            "images": [row.pictures() for row in asked],
        }
        if self.completions:
            made["completion"] = [[{"role": "assistant", "content": row.completion()}] for row in asked]
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What `datasets` makes a fingerprint of, for a cache that is not used; all rows would take it minutes."""
        return {"rows": len(self.rows), "completions": self.completions}


def _trainer(config: TrainConfig, settings: dict[str, Any], task: AnswerTask, reward: AnswerReward) -> Any:
    shared = {
        "model": task.model,
        "train_dataset": row_set(task.rows, completions=by_imitation(config)),
        "processing_class": task.processor,
        "peft_config": _adapters(config.answers.lora),
    }
    if by_imitation(config):
        args = SFTConfig(**settings, max_length=None, completion_only_loss=True)
        trainer = SFTTrainer(args=args, **shared)
        # Qwen-VL's classes say no, and every process and every accumulated part would then weigh its own tokens' mean
        # alike, however few it has. TRL's loss itself counts the tokens of all.
        trainer.model_accepts_loss_kwargs = True
        return trainer
    return TAPOTrainer(args=TAPOConfig(**settings, **_grpo_settings(config.answers)), reward_funcs=[reward], **shared)


def _adapters(rank: int) -> Any:
    """LoRA on the language model, without dropout, whose noise would pass for what frames tell; None for rank 0."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LORA_LAYERS)


def _shared_settings(plan: Plan, out: Path, processes: Processes, bf16: bool) -> dict[str, Any]:
    """Of both trainers; the schedule is `train.plan.learning_rate` but for a first step at 0 where it warms up."""
    descent = round(min(plan.decay * plan.steps, max(plan.steps - plan.warmup, 0)))
    return {
        "output_dir": str(out / CHECKPOINTS),
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.batch,
        "gradient_accumulation_steps": plan.accumulate,
        "learning_rate": plan.lr,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": descent, "decay_type": "linear"},
        "warmup_steps": plan.warmup,
        "adam_beta2": plan.beta2,
        "weight_decay": plan.weight_decay,
        "max_grad_norm": plan.clip,
        "seed": plan.seed,
        "bf16": bf16,
        "gradient_checkpointing": plan.checkpointing,
        "dataloader_num_workers": 0,
        "logging_steps": plan.log_every,
        "save_strategy": "no",  # `RunCallback` says when
        "save_total_limit": plan.keep,
        "remove_unused_columns": False,
        "use_cpu": processes.device.type == "cpu",
        "report_to": [],
        "disable_tqdm": True,
    }


def _grpo_settings(asked: AnswerTraining) -> dict[str, Any]:
    tapo = asked.tapo
    return {
        "num_generations": asked.group,
        "max_completion_length": asked.tokens,
        "temperature": asked.temperature,
        "beta": asked.beta,
        "use_bias_correction_kl": asked.bias_corrected,
        "epsilon": asked.epsilon,
        "num_iterations": asked.iterations,
        "loss_type": asked.average,
        "entropy_coef": asked.entropy,
        "tapo_weight": tapo.weight,
        "tapo_mode": tapo.mode,
        "tapo_corruption": tapo.corruption,
        "tapo_keep": tapo.keep,
        "tapo_clip": tapo.clip,
        "tapo_norm_every": tapo.norm_every,
    }


class RunCallback(TrainerCallback):
    """When a run saves and stops, and what it logs: as `train.loop.fit` does, inside another loop.

    Args:
        config: of the run.
        out: its folder.
        processes: all of them.
        signals: entered.
        reward: whose answers are previewed, or None.
    """

    def __init__(
        self, config: TrainConfig, out: Path, processes: Processes, signals: RunSignals, reward: AnswerReward | None
    ) -> None:
        self.plan, self.out, self.processes, self.signals, self.reward = config.plan, out, processes, signals, reward
        self.previews = config.previews
        self.clock, self.began = RunClock(config.plan, processes), time.monotonic()
        self.loggers: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.processes.rank == 0:
            self.loggers = run_loggers(self.out, self.plan, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        signalled, save, over = self.processes.sum(self.signals.came, self.clock.save_due(step), self.clock.over())
        control.should_save = bool(signalled or save or over or step == self.plan.steps)
        control.should_training_stop = bool(control.should_training_stop or signalled or over)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        for name in ("loss", "grad_norm"):  # on every process alike
            if not math.isfinite(logs.get(name, 0.0)):
                raise TrackGPTError(
                    f"{self.out}: step {state.global_step}: the {name} is {logs[name]}; the last checkpoint is intact"
                )
        kept = [name for name in logs if name in LOGGED or name.startswith(("reward/", "tapo/"))]
        figures = {name: float(logs[name]) for name in kept}
        place = {"step": state.global_step, "minutes": round((time.monotonic() - self.began) / 60, 2)}
        line = place | {name: float(f"{value:.6g}") for name, value in figures.items() if math.isfinite(value)}
        for logger in self.loggers:
            logger.log(line)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock.saved()
        if self.processes.rank == 0 and self.previews:
            draw_curves(self.out)
            if self.reward is not None and self.reward.last:
                path = self.out / "previews" / f"{state.global_step:06d}.jsonl"
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("".join(json.dumps(each) + "\n" for each in self.reward.last[:SHOWN]))

    def close(self) -> None:
        """Close the log."""
        for logger in self.loggers:
            logger.close()


def _export(
    config: TrainConfig, trainer: Any, source: Path, out: Path, step: int, processes: Processes, read_by: str
) -> None:
    """Write the trained model as a hub has it: weights and configuration, and the other files of where it began."""
    place = out / MODEL
    unfinished = place.with_name(place.name + ".tmp")

    def write() -> None:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        copy_beside(source, unfinished)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if config.answers.lora:
            model = model.merge_and_unload()
        model.save_pretrained(unfinished)
        if (source / GENERATION).is_file():  # TRL has set its own
            shutil.copy(source / GENERATION, unfinished)
        record = training_record(config, out, step, processes)
        (unfinished / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        (unfinished / CARD).write_text(card(record, adapters=False, read=read_by))
        replace_folder(unfinished, place)

    together(processes, f"{place}: the model of step {step}", write if processes.rank == 0 else lambda: None)
