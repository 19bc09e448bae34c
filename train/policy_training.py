"""The stages "sft" and "grpo": a vision-language model learns to answer questions about a clip with trajectories.

TRL's trainers have the loop, the optimiser and the checkpoints (`SFTTrainer`; `train.grpo.TAPOTrainer`). From here come
the samples, the rewards, the log, and the folder of the run, which is laid out as every other one is:

    out/checkpoints/checkpoint-120/    TRL's, to go on from; the newest whole one is taken
    out/train.jsonl, curves.png        TRL's figures and those of `train.grpo.TAPOTrainer`, `reward/TERM` for every term
    out/previews/000120.jsonl          answers of the last batch with what they earned
    out/model/                         the model as its hub has it, adapters merged

Both stages see the same rows (`train.query_rows`). Several processes, of `torchrun`, each hold the whole model.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from trackgpt.data.query_clips import QueryClip, rmot26
from trackgpt.errors import InputError, OutOfMemoryError, TrackGPTError, UsageError
from trackgpt.files import writing
from trackgpt.hub import find
from trackgpt.reasoners.brain_weights import load_vlm
from trackgpt.reasoners.coordinates import Sizes
from trackgpt.reasoners.vlm_policy import VlmPolicy
from train.checkpoints import replace_folder, together
from train.config import PolicyTraining, TrainConfig
from train.grpo import TAPOConfig, TAPOTrainer
from train.loop import RunClock, RunSignals, StoppedError
from train.model_folder import CARD, RECORD, card, exported_step, training_record
from train.monitor import run_loggers
from train.plan import Plan
from train.precision import use_bf16
from train.processes import Processes
from train.query_rows import QueryRow, RowMaker, Size
from train.report import draw_curves
from train.rewards import Term, earned, read_answer, reward_terms
from train.run_folder import CHECKPOINTS, MODEL, trl_checkpoints

LORA_LAYERS = r".*(language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
GENERATION = "generation_config.json"
SHOWN = 8
"""Answers of a preview."""
LOGGED = (
    *("loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy"),
    *("completions/mean_length", "completions/clipped_ratio", "clip_ratio/region_mean", "mean_token_accuracy"),
)
"""What is kept of TRL's figures, beside all of "reward/" and "tapo/"; each is a plot in curves.png."""
READ_BY = "`trackgpt track VIDEO -m qtrack:FOLDER`"


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


def train_policy(config: TrainConfig, out: Path, processes: Processes) -> int:
    """Train a policy, going on from the newest checkpoint in `out`; returns the step reached.

    Args:
        config: its stage is "sft" or "grpo".
        out: the run's folder.
        processes: all of them must call this.

    Raises:
        UsageError: settings do not fit one another.
        InputError: the data cannot be read.
        ModelError: the model cannot.
        TrackGPTError: the loss is not finite.
        StoppedError: SIGTERM or SIGINT came; the run was saved.
    """
    terms = reward_terms(config.policy.rewards, config.policy.reward_weights)
    folder = _must_fit(config, processes.size)
    begun = trl_checkpoints(out)
    done = int(begun[-1].name.rpartition("-")[2]) if begun else 0
    if done >= config.plan.steps and exported_step(out / MODEL) == done:
        return done
    if config.threads:
        torch.set_num_threads(config.threads)
    disable_progress_bar()  # of loading and writing; the run has one of its own
    bf16 = use_bf16(config.plan.bf16, processes.device)
    clips = rmot26(config.policy.data, config.policy.part)  # is read before the model
    policy = _loaded(folder, torch.bfloat16 if bf16 and config.policy.lora else torch.float32)
    if begun and not config.policy.lora:
        _restore(policy, begun[-1])
    reward = AnswerReward(_rows(config.policy, clips, policy), terms)
    with warnings.catch_warnings(), RunSignals() as signals:
        warnings.simplefilter("ignore", FutureWarning)  # TRL calls what transformers renames within version 5
        trainer = _trainer(config, _shared_settings(config.plan, out, processes, bf16), policy, reward)
        run = RunCallback(config, out, processes, signals, reward if config.stage == "grpo" else None)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(run)
        if not config.policy.lora:
            trainer._load_from_checkpoint = _already_restored
        if done < config.plan.steps:
            done = _fit(trainer, run, begun, f"{out}: plan.batch={config.plan.batch}")
        else:  # it was ended before its model was written
            trainer._load_from_checkpoint(str(begun[-1]))
        if signals.came and done < config.plan.steps:
            raise StoppedError(
                f"{out}: {signals.name} at step {done}; saved: run the same command to go on", signals.number
            )
        _export(config, trainer, folder, out, done, processes)
    return done


def _must_fit(config: TrainConfig, processes: int) -> Path:
    """Refuse settings that do not fit one another; the folder of the model to start from."""
    plan, policy = config.plan, config.policy
    answers = plan.batch * plan.accumulate * processes
    if config.stage == "grpo" and answers % policy.group:
        raise UsageError(
            f"policy.group={policy.group}: plan.batch * plan.accumulate * processes is {answers}; wanted a multiple"
        )
    if plan.zero:
        raise UsageError(f"plan.zero={plan.zero}: the stage {config.stage} shards nothing; wanted 0; try policy.lora")
    if plan.loss_weights:
        raise UsageError(f"plan.loss_weights: the stage {config.stage} has one loss; see policy.reward_weights")
    if not config.brain:
        raise UsageError(f"brain: the stage {config.stage} wants a vision-language model to start from")
    return find(config.brain)


def _loaded(folder: Path, dtype: torch.dtype) -> VlmPolicy:
    policy = VlmPolicy.from_pretrained(folder, dtype=dtype)
    # Where the reference of `beta` and the adapters' base are looked for.
    policy.model.config._name_or_path = policy.model.name_or_path = str(folder)
    return policy


def _restore(policy: VlmPolicy, checkpoint: Path) -> None:
    """Give a policy the weights of a checkpoint.

    transformers' trainer looks for a model's names in it. A checkpoint has those of the hub, others for Qwen's models,
    so that it finds few, warns, and goes on from the first weights.
    """
    policy.model.load_state_dict(load_vlm(checkpoint, policy.model.dtype)[0].state_dict())


def _already_restored(*_: Any, **__: Any) -> None:
    """In the place of `transformers.Trainer._load_from_checkpoint`, see `_restore`."""


def _rows(asked: PolicyTraining, clips: Iterable[QueryClip], policy: VlmPolicy) -> list[QueryRow]:
    maker = RowMaker(policy.convention, views_of(policy), asked.paper, asked.frames, asked.known)
    rows = maker.rows(clips)
    if not rows:
        raise InputError(f"{asked.data}: no clip of the part {asked.part} has a frame with a visible object")
    return rows


def _fit(trainer: Any, run: RunCallback, begun: Sequence[Path], where: str) -> int:
    """Train from the newest checkpoint on; gives the step reached."""
    with closing(run):
        try:
            trainer.train(resume_from_checkpoint=str(begun[-1]) if begun else None)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{where}: the GPU's memory is full; lower plan.batch and raise plan.accumulate, lower "
                "policy.tokens or policy.frames, set plan.checkpointing=true, or policy.lora=64"
            ) from error
    return int(trainer.state.global_step)


def views_of(policy: VlmPolicy) -> Callable[[Size], Sizes]:
    """A function from width and height of a frame, in pixels, to what a policy sees of it; looks once at every size."""

    @cache
    def view(size: Size) -> Sizes:
        return policy.view(np.zeros((size[1], size[0], 3), np.uint8))

    return view


class AnswerReward:
    """TRL's reward function: what each answer earns, by the number of its row. Logs the mean of every term.

    Attributes:
        last: answers of the last batch with what they earned, as JSON would have them.
    """

    def __init__(self, rows: Sequence[QueryRow], terms: Sequence[Term]) -> None:
        self.rows, self.terms = rows, terms
        self.last: list[dict[str, Any]] = []
        self.__name__ = "answer"

    def __call__(self, completions: list[Any], number: list[int], log_metric: Any = None, **_: Any) -> list[float]:
        self.last, rewards = [], []
        for said, place in zip(completions, number, strict=True):
            text, expected = said[0]["content"], self.rows[place].expected
            found = earned(self.terms, read_answer(text, expected), expected)
            rewards.append(found["reward"])
            self.last.append({"row": place, "asked": self.rows[place].query.words, "answer": text, **found})
        for term in self.terms if log_metric else ():
            log_metric(f"reward/{term.name}", sum(each[term.name] for each in self.last) / len(self.last))
        return rewards


def row_set(rows: Sequence[QueryRow], completions: bool) -> Dataset:
    """Rows as TRL reads them, by number; files are opened when a row is asked for."""

    def of(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        asked = [rows[number] for number in batch["number"]]
        made: dict[str, list[Any]] = {
            "number": batch["number"],
            "prompt": [row.prompt() for row in asked],
            "images": [row.pictures() for row in asked],
        }
        if completions:
            made["completion"] = [[{"role": "assistant", "content": row.completion()}] for row in asked]
        return made

    return Dataset.from_dict({"number": list(range(len(rows)))}).with_transform(of)


def _trainer(config: TrainConfig, settings: dict[str, Any], policy: VlmPolicy, reward: AnswerReward) -> Any:
    shared = {
        "model": policy.model,
        "train_dataset": row_set(reward.rows, completions=config.stage == "sft"),
        "processing_class": policy.processor,
        "peft_config": _adapters(config.policy.lora),
    }
    if config.stage == "sft":
        args = SFTConfig(**settings, max_length=None, completion_only_loss=True)
        return SFTTrainer(args=args, **shared)
    return TAPOTrainer(args=TAPOConfig(**settings, **_grpo_settings(config.policy)), reward_funcs=[reward], **shared)


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


def _grpo_settings(policy: PolicyTraining) -> dict[str, Any]:
    tapo = policy.tapo
    return {
        "num_generations": policy.group,
        "max_completion_length": policy.tokens,
        "temperature": policy.temperature,
        "beta": policy.beta,
        "use_bias_correction_kl": policy.bias_corrected,
        "epsilon": policy.epsilon,
        "num_iterations": policy.iterations,
        "loss_type": policy.average,
        "entropy_coef": policy.entropy,
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


def _export(config: TrainConfig, trainer: Any, source: Path, out: Path, step: int, processes: Processes) -> None:
    """Write the trained model as a hub has it: weights and configuration, and the other files of where it began."""
    place = out / MODEL
    unfinished = place.with_name(place.name + ".tmp")

    def write() -> None:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix in (".json", ".jinja", ".txt", ".model", ".yaml") and "index" not in file.name:
                shutil.copy(file, unfinished)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if config.policy.lora:
            model = model.merge_and_unload()
        model.save_pretrained(unfinished)
        if (source / GENERATION).is_file():  # TRL has set its own
            shutil.copy(source / GENERATION, unfinished)
        record = training_record(config, out, step, processes)
        (unfinished / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        (unfinished / CARD).write_text(card(record, adapters=False, read=READ_BY))
        replace_folder(unfinished, place)

    together(processes, f"{place}: the model of step {step}", write if processes.rank == 0 else lambda: None)
