"""One answer, one frame or one training step, rehearsed in shapes alone: what it would hold beside the weights.

The modules are the real ones (see `trackgpt.planning.outline`), so a new family or encoder needs no new formula.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from trackgpt.geometry.letterbox import Letterbox, fit
from trackgpt.perception.encoders import ConvEncoder, Features, SamViT
from trackgpt.perception.segmenter import Segmenter
from trackgpt.planning.memory_plan import DTYPES, Activations, Inference, Load, load_of
from trackgpt.planning.outline import Outline, Skeleton
from trackgpt.planning.tracing import without_memory
from trackgpt.precision import round_frozen

PREFIX = 40
"""Tokens around image and turns: the conversation's system line and roles."""


FRAME = (720, 1280)
"""Height and width of a frame in pixels, where nobody says another size."""


@dataclass(frozen=True)
class Answering:
    """What is asked of a model that tracks.

    Attributes:
        tokens: of question and answer, beside those of the image.
        targets: objects tracked at once.
        ahead: frames encoded before their turn, taken to be of `FRAME`.
    """

    tokens: int = 200
    targets: int = 1
    ahead: int = 0


def plan_inference(outline: Outline, asked: Answering, dtypes: Iterable[str] = DTYPES) -> dict[str, Inference]:
    """What a model takes that answers and tracks, by dtype.

    Args:
        outline: of the model.
        asked: see there.
        dtypes: of `memory_plan.DTYPES`. Quantised weights compute in bfloat16, and 4 bits are unpacked for it,
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
    length = PREFIX + model.brain.family.image_tokens + asked.tokens
    image = _image(model, 1)
    with without_memory(model) as live:
        cache = DynamicCache(config=model.brain.llava.config.get_text_config())
        states = read(model, look(model, image), length, None, past_key_values=cache, use_cache=True)
        model.brain.llava.lm_head(states[0, -asked.tokens :]).float().topk(2)
        held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        answer = live.peak - held
        del states, cache
        live.restart()
        begun = live.now
        frame, kept = _frame(model, asked.targets)
        peak = live.peak - begun
    return Inference({}, length, held, answer, peak, kept * asked.ahead + frame, asked.ahead)


def _frame(model: Skeleton, targets: int) -> tuple[int, int]:
    """Encode a frame and decode its targets; bytes of a track's queries, and of a `FRAME` with its features."""
    side, c = model.config.perception.image_side, model.config.perception.decoder.hidden_size
    pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    features = model.segmenter.encode(pixels)
    query = torch.zeros(targets, c, dtype=model.segmenter.like.dtype)
    model.segmenter.decode(features.repeated(targets), query, query, query)
    maps = [features.embedding, *(features.fine or ())]
    return 3 * targets * c * 4, 3 * math.prod(FRAME) + sum(m.nbytes for m in maps)


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
        frame: height and width in pixels at which masks are compared (`data.mask_loss: original`); None for the
            decoder's grid.
    """

    batch: int
    frames: int = 1
    turns: int = 1
    targets: int = 1
    words: int = 64
    own: bool = False
    cached: bool = False
    frame: tuple[int, int] | None = None

    def length(self, model: Skeleton) -> int:
        """Tokens of a packed conversation."""
        return PREFIX + model.brain.family.image_tokens + self.turns * self.words

    @property
    def rows(self) -> int:
        """Targets of the batch."""
        return self.batch * self.turns * self.targets

    def __str__(self) -> str:
        clip = f"{self.frames} frame(s), {self.turns} turn(s) of {self.targets} target(s) and {self.words} tokens"
        return f"batch {self.batch} of {clip}" + (", own answers" * self.own) + (", cached features" * self.cached)

    def compared(self, side: int) -> Compared:
        """Where masks meet their truth, for frames in squares of `side` pixels."""
        return Compared(side, self.frame, self.batch)


@dataclass(frozen=True)
class Compared:
    """Where `train.tracking.mask_losses` compares masks with their truth.

    Attributes:
        side: of the square that frames lie in, pixels; the decoder's grid has a quarter of it.
        frame: height and width in pixels of the masks; None for the grid.
        samples: of a batch; in frames each is compared alone, for sizes differ, on the grid all are at once.
    """

    side: int
    frame: tuple[int, int] | None = None
    samples: int = 1

    def __str__(self) -> str:
        if self.frame is None:
            return f"on the decoder's grid of {self.side // 4} x {self.side // 4}"
        return f"in frames of {self.frame[1]} x {self.frame[0]}, assumed"


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
    compared = lessons.compared(outline.config.perception.image_side)
    losses = rehearse_mask_losses(lessons.rows, lessons.frames, compared, bf16)
    return load, Activations(plain, again, losses, str(compared))


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
        recompute(brain.llava.model.get_decoder())
    length = lessons.length(model)
    images = _image(model, lessons.batch)
    with without_memory(model) as live:
        forget_gradients(model.parameters())
        cached = _features(model, lessons) if lessons.cached else None
        live.restart()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = _learn(model, lessons, images, length, cached)
        loss.backward()
        del loss
        return live.peak


def recompute(language: Any) -> None:
    """As `train.assemble.recompute` does, without the state of random numbers, which is not fake."""
    with warnings.catch_warnings():
        # transformers renames this within version 5; the old name is there in all of it.
        warnings.simplefilter("ignore", FutureWarning)
        language.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    language.config.use_cache = False


def _learn(model: Skeleton, lessons: Lessons, images: Tensor, length: int, cached: Features | None) -> Tensor:
    """The losses of `train.tracking` for a batch at its largest."""
    b, rows = lessons.batch, lessons.rows
    mask = torch.ones(b, 1, length, length, dtype=torch.bool)
    tokens = look(model, images)
    states = read(model, tokens, length, mask)
    logits = model.brain.llava.lm_head(states[:, -lessons.turns * lessons.words // 2 :].flatten(0, 1))
    text = F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))
    if lessons.own:
        states = read(model, tokens, length, mask)
    queries = model.brain.projection(states[:, 0][torch.zeros(2 * rows, dtype=torch.long)])
    features = cached or _features(model, lessons)
    masks, scores = unroll(model, features, queries[:rows], queries[rows:], lessons.frames)
    return text + mask_losses(masks, scores, lessons.compared(model.config.perception.image_side))


def unroll(
    model: Skeleton, features: Features, referring: Tensor, purport: Tensor, frames: int
) -> tuple[Tensor, Tensor]:
    """Decode targets (n, c) of the first frame again and again, as `train.tracking.unroll` follows them.

    Returns:
        Logits (n, frames, grid, grid) and scores (n, frames).
    """
    online, masks, scores = None, [], []
    at = torch.zeros(len(referring), dtype=torch.long)
    for _ in range(frames):
        decoded = model.segmenter.decode(features.of(at), referring, online, purport)
        online = decoded.online
        masks.append(decoded.logits)
        scores.append(decoded.score)
    return torch.stack(masks, 1), torch.stack(scores, 1)


def rehearse_mask_losses(rows: int, frames: int, compared: Compared, bf16: bool) -> int:
    """The most bytes that the mask losses hold, forward and backward, beside the logits that they read.

    Args:
        rows: targets, shared equally among the samples.
        frames: of each.
        compared: where they meet their truth.
        bf16: logits are bfloat16, as autocast gives them.
    """
    grid = compared.side // 4
    with without_memory(nn.Module()) as live:
        dtype = torch.bfloat16 if bf16 else torch.float32
        logits = torch.zeros(rows, frames, grid, grid, dtype=dtype, requires_grad=True)
        scores = torch.zeros(rows, frames, requires_grad=True)
        begun = live.now
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = mask_losses(logits, scores, compared)
        loss.backward()
        return live.peak - begun


def mask_losses(logits: Tensor, scores: Tensor, compared: Compared) -> Tensor:
    """A scalar that holds what `train.tracking.mask_losses` holds, the truth included.

    Args:
        logits: (n, t, grid, grid).
        scores: (n, t).
        compared: where logits meet the truth.
    """
    n, t = scores.shape
    box = None if compared.frame is None else fit(compared.frame, compared.side)
    h, w = compared.frame or logits.shape[2:]
    # Made of bytes, for a bool that depends on nothing else would be real (see `trackgpt.planning.tracing`).
    truth, ignored = (torch.zeros(n, t, h, w, dtype=torch.uint8).view(torch.bool) for _ in range(2))
    costs, overlaps = [], []
    for own in torch.arange(n).chunk(1 if box is None else compared.samples):
        rows = slice(int(own[0]), int(own[-1]) + 1)
        here, found = torch.ones(len(own), t, dtype=torch.bool), logits[rows]
        costs.append(_mask_costs(_enlarged(found[here], box), truth[rows][here], ignored[rows][here]))
        with torch.no_grad():
            overlaps.append(_mask_iou(_enlarged(found[here], box), truth[rows][here], ignored[rows][here]))
    return torch.cat(costs).mean() + F.mse_loss(scores.float().flatten(), torch.cat(overlaps))


def _enlarged(logits: Tensor, box: Letterbox | None) -> Tensor:
    """As `train.truth` brings logits (m, grid, grid) to the frame's resolution."""
    if box is None:
        return logits
    square = F.interpolate(logits.float().unsqueeze(1), (box.side, box.side), mode="bilinear", align_corners=False)
    frame = square[..., : box.height, : box.width]
    return F.interpolate(frame, box.source, mode="bilinear", align_corners=False).squeeze(1)


def _mask_costs(logits: Tensor, truth: Tensor, ignored: Tensor) -> Tensor:
    """As `train.losses.mask_costs`, of (m, h, w)."""
    counted = ~ignored
    target = (truth & counted).float()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none") * counted
    entropy_each = entropy.flatten(1).sum(1) / counted.flatten(1).sum(1)
    prob = (logits.float().sigmoid() * counted).flatten(1)
    flat = target.flatten(1)
    overlap = (prob * flat).sum(1)
    return entropy_each + overlap / (prob.sum(1) + flat.sum(1))


def _mask_iou(logits: Tensor, truth: Tensor, ignored: Tensor) -> Tensor:
    """As `train.losses.mask_iou`, of (m, h, w)."""
    counted = ~ignored
    found, wanted = (logits > 0) & counted, truth & counted
    union = (found | wanted).sum(dim=(1, 2))
    return (found & wanted).sum(dim=(1, 2)) / union


def _features(model: Skeleton, lessons: Lessons) -> Features:
    side = model.config.perception.image_side
    return model.segmenter.encode(torch.zeros(lessons.batch * lessons.frames, 3, side, side, dtype=torch.uint8))


def _image(model: Skeleton, b: int) -> Tensor:
    """Real pixels (b, 3, s, s) for the brain: one family looks for images that are empty."""
    return torch.ones(b, 3, model.brain.config.image_side, model.brain.config.image_side)


def look(model: Skeleton, images: Tensor) -> Tensor:
    """Image tokens (b, cells, h) of images (b, 3, s, s)."""
    brain = model.brain
    return brain.family.project(brain.llava.model, brain.family.arrange(images).to(_dtype(brain.llava)))


def read(model: Skeleton, tokens: Tensor, length: int, mask: Tensor | None, **cache: Any) -> Tensor:
    """Last hidden states (b, length, h) of conversations with one image each, whose tokens are given."""
    brain, b = model.brain, len(tokens)
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


def forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients are planned elsewhere."""
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
