"""GRPO with Temporal Perception-Aware Policy Optimization (QTrack, section 3.5), as one method of TRL's trainer.

Each answer is scored once more on frames out of which motion was taken. What a token gains by the true frames is

    g = log p(token | frames) - log p(token | corrupted frames)

which averages to the KL divergence that the paper maximises (eq. 4). Its Algorithm 1 adds g to the objective; with the
corrupted branch detached, as all implementations have it, that term has no gradient on-policy. What has the gradient of
KL(p || p_corrupted) is g, detached, in the advantage of its token: `advantage`, the default. `loss` is PAPO's form, for
comparison: k3 = exp(-g) + g - 1 in the loss, which has the gradient of the divergence in the other direction,
KL(p_corrupted || p). The derivative of k3 by log p is 1 - exp(-g), and enters by the same way. PAPO computes it anew in
every iteration, so the two are the same where a batch of answers is used for one update (`iterations: 1`).

Nothing is remembered between steps, no other method is replaced, and without a weight TRL's trainer is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from trackgpt.errors import InputError, UsageError

CORRUPTIONS = ("freeze", "shuffle", "drop")
MODES = ("advantage", "loss")
READ_BY_FORWARD = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)
"""What TRL keeps of a batch for the model's forward, beside the ids."""


def shown_instead(count: int, corruption: str, keep: float, generator: torch.Generator) -> list[int]:
    """For each frame of a sample, the index of the one that is shown in its place.

    Every frame after the first stays as it is with the probability `keep`; of the others,

        freeze    shows the first frame (the paper's Algorithm 1, with keep = 0)
        shuffle   each shows another one of them; the first frame may be among them
        drop      shows the last frame before it that stayed, so that the number of images remains

    Raises:
        UsageError: there is no such corruption.
    """
    if corruption not in CORRUPTIONS:
        raise UsageError(f"tapo corruption `{corruption}`: wanted one of {', '.join(CORRUPTIONS)}")
    stays = (torch.rand(count, generator=generator) < keep).tolist()
    if corruption == "freeze":
        return [frame if stays[frame] else 0 for frame in range(count)]
    if corruption == "drop":
        shown = [0] * count
        for frame in range(1, count):
            shown[frame] = frame if stays[frame] else shown[frame - 1]
        return shown
    shown = list(range(count))
    moved = [frame for frame in range(count) if not stays[frame]]
    order = [moved[place] for place in torch.randperm(len(moved), generator=generator).tolist()]
    for place, frame in enumerate(order):
        shown[frame] = order[place - 1]
    return shown


@dataclass(frozen=True)
class Corrupted:
    """A scored batch with other pixels.

    Attributes:
        pixels: of all frames, as `pixel_values` of the batch.
        changed: bool (samples,), whether a sample shows anything else than before.
        kept: share of the frames after the first of their sample that show themselves; 1 without such frames.
    """

    pixels: Tensor
    changed: Tensor
    kept: float


def corrupt_frames(batch: dict[str, Any], corruption: str, keep: float, generator: torch.Generator) -> Corrupted:
    """Show other frames of the same sample, see `shown_instead`; token ids stay as they are.

    Args:
        batch: `pixel_values`, with one row per image, or, where there is an `image_grid_thw` (images, 3), the patches
            of all images one after the other; and `num_images` of each sample.
        corruption, keep, generator: see `shown_instead`.

    Raises:
        InputError: frames of one sample have different sizes.
    """
    grid = batch.get("image_grid_thw")
    images = torch.split(batch["pixel_values"], 1 if grid is None else grid.prod(-1).tolist())
    pixels: list[Tensor] = []
    changed, kept, later, start = [], 0, 0, 0
    for count in batch["num_images"]:
        if grid is not None and not (grid[start : start + count] == grid[start : start + 1]).all():
            sizes = grid[start : start + count, 1:].tolist()
            raise InputError(f"frames of one sample have {sizes} rows and columns of patches; wanted one size")
        shown = shown_instead(count, corruption, keep, generator)
        pixels += [images[start + frame] for frame in shown]
        changed.append(shown != list(range(count)))
        kept += sum(frame == place for place, frame in enumerate(shown) if place)
        later += max(count - 1, 0)
        start += count
    device = batch["pixel_values"].device
    return Corrupted(torch.cat(pixels), torch.tensor(changed, device=device), kept / later if later else 1.0)


def token_bonus(gain: Tensor, mode: str, clip: float) -> Tensor:
    """What a gain adds to the advantage of its token, before the weight; no gradient flows through it.

    Args:
        gain: float (...), log p - log p_corrupted in nats.
        mode: "advantage": the gain, within -clip and clip. "loss": 1 - exp(-gain), the gradient of k3 by log p; 0 where
            k3 is above `clip`, as the clipped loss has it.
        clip: nats.
    """
    gain = gain.detach()
    if mode == "advantage":
        return gain.clamp(-clip, clip)
    k3 = torch.exp(-gain) + gain - 1
    return torch.where(k3 <= clip, 1 - torch.exp(-gain), torch.zeros_like(gain))


@dataclass
class TAPOConfig(GRPOConfig):
    """TRL's settings and those of TAPO.

    Attributes:
        tapo_weight: of the bonus, gamma in the paper; 0 is plain GRPO, without the forwards.
        tapo_mode: see `token_bonus`.
        tapo_corruption, tapo_keep: see `shown_instead`.
        tapo_clip: nats per token.
        tapo_norm_every: optimiser steps between measurements of the bonus's own gradient, logged as `tapo/grad_norm`;
            each costs a forward and a backward. 0 never measures.
    """

    tapo_weight: float = field(default=0.0, metadata={"help": "weight of the bonus"})
    tapo_mode: str = field(default="advantage", metadata={"help": "advantage or loss"})
    tapo_corruption: str = field(default="freeze", metadata={"help": "freeze, shuffle or drop"})
    tapo_keep: float = field(default=0.0, metadata={"help": "share of frames that stay as they are"})
    tapo_clip: float = field(default=5.0, metadata={"help": "nats per token"})
    tapo_norm_every: int = field(default=0, metadata={"help": "steps between measured gradient norms"})


class TAPOTrainer(GRPOTrainer):
    """TRL's GRPO trainer, whose advantages carry the bonus of every token. Logged, over all processes:

    tapo/kl          mean gain per token where frames were changed, nats, before clipping: the estimate of eq. 4
    tapo/clipped     share of the tokens whose gain is clipped
    tapo/bonus       mean size of what is added to an advantage
    tapo/kept        temporal keep rate: share of the frames after the first that were really shown as they are
    tapo/grad_norm   norm of the gradient of the bonus alone, as token means have it; a mean over processes
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        args = self.args
        if not args.tapo_weight or "pixel_values" not in batch:
            return batch
        drawn = torch.Generator().manual_seed(args.seed + 7919 * self.state.global_step + args.process_index * 10**9)
        corrupted = corrupt_frames(batch, args.tapo_corruption, args.tapo_keep, drawn)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, args.gradient_checkpointing_kwargs):
            known = batch.get("old_per_token_logps")
            true = score(self, batch) if known is None else known
            gain = true - score(self, {**batch, "pixel_values": corrupted.pixels})
        mask = batch["completion_mask"]
        gain = gain * mask * corrupted.changed[:, None]  # of equal frames it is 0, whatever arithmetic makes of it
        bonus = args.tapo_weight * token_bonus(gain, args.tapo_mode, args.tapo_clip) * mask
        batch["advantages"] = batch["advantages"][:, None] + bonus  # TRL takes one for each token, too
        self._log_gain(gain, bonus, mask * corrupted.changed[:, None], corrupted.kept)
        if args.tapo_norm_every and self.state.global_step % args.tapo_norm_every == 0:
            self._log("tapo/grad_norm", bonus_gradient_norm(self, batch, bonus))
        return batch

    def _log_gain(self, gain: Tensor, bonus: Tensor, mask: Tensor, kept: float) -> None:
        count = mask.sum().clamp(min=1)
        self._log("tapo/kl", gain.sum() / count)
        self._log("tapo/clipped", (gain.abs() > self.args.tapo_clip).sum() / count)
        self._log("tapo/bonus", bonus.abs().sum() / count)
        self._log("tapo/kept", kept)

    def _log(self, name: str, value: Tensor | float) -> None:
        here = torch.as_tensor(value, dtype=torch.float32, device=self.accelerator.device)
        kind = "train" if self.model.training else "eval"
        self._metrics[kind][name].append(self.accelerator.gather(here).nanmean().item())


def score(trainer: GRPOTrainer, batch: dict[str, Any]) -> Tensor:
    """Log probabilities of the answers of a batch, float (samples, tokens), by the trainer's own forward."""
    width = batch["completion_ids"].size(1)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    args = trainer.args
    size = args.per_device_train_batch_size if trainer.model.training else args.per_device_eval_batch_size
    seen = {name: batch[name] for name in READ_BY_FORWARD if name in batch}
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, batch_size=size, **seen)[0]


def bonus_gradient_norm(trainer: GRPOTrainer, batch: dict[str, Any], bonus: Tensor) -> float:
    """Norm of the gradient that a bonus (samples, tokens) gives to the parameters, as a mean over tokens.

    The graph of all answers of the batch is held at once: more memory than a step takes, unless activations are
    recomputed (`plan.checkpointing`).
    """
    learn = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    mask = batch["completion_mask"]
    with torch.enable_grad():
        objective = (score(trainer, batch) * bonus * mask).sum() / mask.sum().clamp(min=1)
        gradients = torch.autograd.grad(objective, learn, allow_unused=True)
    return float(torch.stack([each.float().norm() for each in gradients if each is not None]).norm())
