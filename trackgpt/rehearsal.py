"""One answer, one frame or one training step, rehearsed in shapes alone: what it would hold beside the weights.

The modules are the real ones (see `trackgpt.outline`), so a new family or encoder is planned without a new formula.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from trackgpt.memory_plan import DTYPES, Activations, Inference, Load, load_of
from trackgpt.outline import Outline, Skeleton
from trackgpt.perception.attention import choose_attention
from trackgpt.perception.encoders import ConvEncoder, Features, SamViT
from trackgpt.perception.segmenter import Segmenter
from trackgpt.precision import round_frozen
from trackgpt.tracing import without_memory

PREFIX = 40
"""Tokens around image and turns: the conversation's system line and roles."""


@dataclass(frozen=True)
class Answering:
    """What is asked of a model that tracks.

    Attributes:
        tokens: of question and answer, beside those of the image.
        targets: objects tracked at once.
        ahead: frames encoded before their turn.
    """

    tokens: int = 200
    targets: int = 1
    ahead: int = 0


def plan_inference(outline: Outline, asked: Answering, dtypes: Iterable[str] = DTYPES) -> dict[str, Inference]:
    """What a model takes that answers and tracks, by dtype.

    Args:
        outline: of the model.
        asked: see there.
        dtypes: of `trackgpt.memory_plan.DTYPES`. Quantised weights compute in bfloat16, and 4 bits are unpacked for it,
            one matrix at a time.
    """
    held: dict[torch.dtype, Inference] = {}
    plans = {}
    for dtype in dtypes:
        computes = torch.float32 if dtype == "float32" else torch.bfloat16
        if computes not in held:
            held[computes] = rehearse_answer(outline, computes, asked)
        unpacked = 2 * outline.skeleton().largest_matrix() if dtype == "int4" else 0
        answer = held[computes].answer + unpacked
        plans[dtype] = replace(held[computes], weights=outline.skeleton().weights(dtype), answer=answer)
    return plans


@torch.no_grad()
def rehearse_answer(outline: Outline, dtype: torch.dtype, asked: Answering) -> Inference:
    """What one answer and one frame hold in a dtype, without the weights."""
    model = outline.skeleton().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if isinstance(module, (ConvEncoder, SamViT, Segmenter)):
            module.fold()
    choose_attention(model.segmenter, "auto", "cpu")
    length = PREFIX + model.brain.family.image_tokens + asked.tokens
    image = _image(model, 1)
    with without_memory(model) as live:
        cache = DynamicCache(config=model.brain.llava.config.get_text_config())
        states = _read(model, image, length, None, past_key_values=cache, use_cache=True)
        model.brain.llava.lm_head(states[0, -asked.tokens :]).float().topk(2)
        held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        answer = live.peak - held
        del states, cache
        live.restart()
        begun = live.now
        frame, kept = _frame(model, asked.targets)
        peak = live.peak - begun
    return Inference({}, length, held, answer, peak, kept * asked.ahead + frame)


def _frame(model: Skeleton, targets: int) -> tuple[int, int]:
    """Encode a frame and decode its targets; bytes of a track's queries, and of the frame with its features."""
    side, c = model.config.perception.image_side, model.config.perception.decoder.hidden_size
    pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    features = model.segmenter.encode(pixels)
    query = torch.zeros(targets, c, dtype=model.segmenter.like.dtype)
    model.segmenter.decode(features.repeated(targets), query, query, query)
    maps = [features.embedding, *(features.fine or ())]
    return 3 * targets * c * 4, pixels.nbytes + sum(m.nbytes for m in maps)


@dataclass(frozen=True)
class Lessons:
    """The size of a training step's batch on one GPU, at its largest.

    Attributes:
        batch: samples.
        frames: unrolled of each.
        turns: instructions of each.
        targets: of each instruction.
        words: tokens of a turn, instruction and answer together.
        own: a second pass reads the brain's own answers.
        cached: features come from a cache instead of the encoder.
    """

    batch: int
    frames: int = 1
    turns: int = 1
    targets: int = 1
    words: int = 64
    own: bool = False
    cached: bool = False

    def length(self, model: Skeleton) -> int:
        """Tokens of a packed conversation."""
        return PREFIX + model.brain.family.image_tokens + self.turns * self.words

    def __str__(self) -> str:
        clip = f"{self.frames} frame(s), {self.turns} turn(s) of {self.targets} target(s) and {self.words} tokens"
        return f"batch {self.batch} of {clip}" + (", own answers" * self.own) + (", cached features" * self.cached)


def plan_training(
    outline: Outline, lessons: Lessons, bf16: bool, frozen: Iterable[str] = ()
) -> tuple[Load, Activations]:
    """What the stage "tracking" holds on a GPU: weights that learn and weights that do not, and activations.

    Args:
        outline: of the model that learns.
        lessons: a batch.
        bf16: autocast to bfloat16, with frozen matrices stored in it where there is LoRA.
        frozen: halves that do not learn: "brain", "segmenter".
    """
    model = _learner(outline, bf16, frozen)
    load = load_of(model.parameters())
    plain = rehearse_step(model, lessons, bf16, checkpointing=False)
    again = rehearse_step(_learner(outline, bf16, frozen), lessons, bf16, checkpointing=True)
    return load, Activations(plain, again)


def _learner(outline: Outline, bf16: bool, frozen: Iterable[str]) -> Skeleton:
    """The model as `python -m train` prepares it for the stage "tracking"."""
    model = outline.learner()
    for half in frozen:
        getattr(model, half).requires_grad_(False)
    model.segmenter.image_encoder.requires_grad_(False)
    model.segmenter.no_mask_embed.requires_grad_(False)
    if bf16 and outline.config.brain.lora.rank:
        round_frozen(model)
    return model


def rehearse_step(model: Skeleton, lessons: Lessons, bf16: bool, checkpointing: bool) -> int:
    """The most bytes that a forward and backward pass of the stage "tracking" holds, weights and gradients aside.

    Args:
        model: with adapters, and with gradients off where it does not learn. It is of no use afterwards.
        lessons: the batch.
        bf16: autocast to bfloat16.
        checkpointing: the language model's activations are computed again in the backward pass.
    """
    brain, segmenter = model.brain, model.segmenter
    model.train()
    brain.llava.model.get_encoder("image").eval()
    segmenter.image_encoder.eval()
    if checkpointing:
        _recompute(brain.llava.model.get_decoder())
    length = lessons.length(model)
    images = _image(model, lessons.batch)
    with without_memory(model) as live:
        _forget_gradients(model.parameters())
        cached = _features(model, lessons) if lessons.cached else None
        live.restart()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = _learn(model, lessons, images, length, cached)
        loss.backward()
        del loss
        return live.peak


def _recompute(language: Any) -> None:
    """As `train.assemble.recompute` does, without the state of random numbers, which is not fake."""
    with warnings.catch_warnings():
        # transformers renames this within version 5; the old name is there in all of it.
        warnings.simplefilter("ignore", FutureWarning)
        language.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    language.config.use_cache = False


def _learn(model: Skeleton, lessons: Lessons, images: Tensor, length: int, cached: Features | None) -> Tensor:
    """The losses of `train.tracking` for a batch at its largest."""
    b, rows = lessons.batch, lessons.batch * lessons.turns * lessons.targets
    mask = torch.ones(b, 1, length, length, dtype=torch.bool)
    states = _read(model, images, length, mask)
    logits = model.brain.llava.lm_head(states[:, -lessons.turns * lessons.words // 2 :].flatten(0, 1))
    text = F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))
    if lessons.own:
        states = _read(model, images, length, mask)
    queries = model.brain.projection(states[:, 0][torch.zeros(2 * rows, dtype=torch.long)])
    referring, purport = queries[:rows], queries[rows:]
    features = cached or _features(model, lessons)
    online, masks, scores = None, [], []
    at = torch.zeros(rows, dtype=torch.long)
    for _ in range(lessons.frames):
        decoded = model.segmenter.decode(features.of(at), referring, online, purport)
        online = decoded.online
        masks.append(decoded.logits)
        scores.append(decoded.score)
    return text + _mask_losses(torch.stack(masks, 1).flatten(0, 1), torch.stack(scores, 1).flatten())


def _mask_losses(logits: Tensor, scores: Tensor) -> Tensor:
    """What `train.losses` keeps of masks (n, h, w) and scores (n,)."""
    logits = logits[torch.arange(len(logits))].float()
    truth = torch.zeros_like(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * truth
    dice = (logits.sigmoid() * truth).flatten(1) * truth.flatten(1)
    return entropy.sum() + dice.sum() + scores.float().square().mean()


def _features(model: Skeleton, lessons: Lessons) -> Features:
    side = model.config.perception.image_side
    return model.segmenter.encode(torch.zeros(lessons.batch * lessons.frames, 3, side, side, dtype=torch.uint8))


def _image(model: Skeleton, b: int) -> Tensor:
    """Real pixels (b, 3, s, s) for the brain: one family looks for images that are empty."""
    return torch.ones(b, 3, model.brain.config.image_side, model.brain.config.image_side)


def _read(model: Skeleton, images: Tensor, length: int, mask: Tensor | None, **cache: Any) -> Tensor:
    """Last hidden states (b, length, h) of conversations with one image each."""
    brain, b = model.brain, len(images)
    pixels = brain.family.arrange(images)
    tokens = brain.family.project(brain.llava.model, pixels.to(_dtype(brain.llava)))
    ids = torch.full((b, length), int(brain.family.image_id == 0))
    ids[:, 1 : 1 + brain.family.image_tokens] = brain.family.image_id
    places = torch.arange(length).expand(b, -1)
    words = brain.llava.get_input_embeddings()(ids)
    given = brain.family.embedded(words, ids == brain.family.image_id, tokens)
    positions = brain.family.positions(ids, places)
    return brain.llava.model.get_decoder()(
        **given, attention_mask=mask, position_ids=positions, **cache
    ).last_hidden_state


def _dtype(llava: nn.Module) -> torch.dtype:
    return next(llava.parameters()).dtype


def _forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients are planned elsewhere."""
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
