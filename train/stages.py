"""Stages: which samples, which parameters, which losses. The loop is `train.loop.fit`.

Foundation (nano's pre-training, in the place of SAM's and LLaVA's):
    words     the vision tower learns to map patches to the words that name them
    masks     the perception learns to follow a fixed code of a target (`train.codes`), propagation unrolled
    language  the brain learns to describe, count, locate, answer instructions, and predict those codes
Then, with the losses of paper section 3.5:
    join      instruction to masks, end to end, unrolled over I_0, I_t, I_t+1
    tracking  the same on data sets (`train.tracking`)
Then, for a brain whose tower reads a larger square (`train.enlarge`), before another "join":
    seeing    the tower learns names from windows and mosaics, and where whole objects are (`train.seeing`)
    pointing  language on the held tower, with attention shown where to look (`train.pointing`)
And, of their own (`train.memory_tracking`, `train.box_tracking`):
    memory    the memory segmenter learns to follow what it is shown
    box       the box tracker learns to find what it is shown, and what words mean
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.errors import UsageError
from trackgpt.perception.mask_propagation import MaskPropagation
from trackgpt.systems.trackgpt import TrackGPT
from train.box_tracking import BoxTrackingStage
from train.coded_answers import answer_losses, codes_of
from train.codes import CATEGORY, CATEGORY_NAMES, COLOUR, COLOUR_NAMES, EXTENT, PLACE, Codes
from train.config import TRL_STAGES, JoinConfig, Shape, TrainConfig
from train.losses import Losses, code_loss, text_loss
from train.memory_tracking import MemoryTrackingStage
from train.naming import Naming
from train.packing import (
    OwnAnswers,
    Packed,
    mistaken,
    own_answers,
    pack,
    packed_hidden,
    packed_logits,
    packed_queries,
    project,
)
from train.pointing import PointingStage
from train.seeing import SeeingStage
from train.synthtrack_samples import (
    JoinSample,
    LanguageSample,
    join_sample,
    language_sample,
    masks_sample,
    words_sample,
)
from train.tracking import Failures, TrackingStage, unrolled_losses


class Stage(Protocol):
    """A stage of the recipe."""

    model: Any
    weights: dict[str, float]

    def sample(self, seed: int) -> Any:
        """One sample, numpy only; runs in worker processes."""
        ...

    def modules(self) -> Iterable[nn.Module]:
        """What trains."""
        ...

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        """Loss parts and figures to log for a batch of samples."""
        ...


def _tensor(samples: list[dict[str, np.ndarray]], key: str) -> Tensor:
    return torch.from_numpy(np.stack([s[key] for s in samples]))


def _frames(array: Tensor) -> Tensor:
    """uint8 (..., s, s, 3) to (n, 3, s, s)."""
    return array.flatten(0, -4).permute(0, 3, 1, 2)


class WordsStage:
    """Patches to words: the vision tower, the projector and the word embeddings."""

    weights = {"word_category": 1.0, "word_colour": 0.5, "word_region": 0.3, "background": 0.2}

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device) -> None:
        self.model, self.shape, self.device = model, shape, device
        self.naming = Naming(model).to(device)
        width = model.brain.llava.config.get_text_config().hidden_size
        self.objectness = nn.Linear(width, 1).to(device)

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        return words_sample(seed, self.shape.side)

    def modules(self) -> Iterable[nn.Module]:
        brain = self.model.brain
        seeing = [part for part in brain.llava.model.children() if part is not brain.language]
        return [*seeing, brain.llava.get_input_embeddings(), self.naming, self.objectness]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        frames = _frames(_tensor(samples, "frames")).to(self.device)
        return self.batch_losses(frames, {key: _tensor(samples, key).flatten(0, 1) for key in self.naming.names})

    def batch_losses(self, frames: Tensor, cells: dict[str, Tensor]) -> tuple[Losses, dict[str, float]]:
        """Losses of frames, uint8 (n, 3, s, s), with labels of their cells, int64 (n, rows, columns)."""
        tokens = project(self.model.brain, self.model.brain.preprocess(frames))
        out, figures = self.naming.losses(self.model, tokens, cells)
        logit = self.objectness(tokens).flatten()
        out["background"] = F.binary_cross_entropy_with_logits(
            logit.float(), (cells["category"].flatten() >= 0).float().to(self.device)
        )
        return out, figures


class MasksStage:
    """Code to masks over time: encoder and decoder, propagation unrolled as inference runs it."""

    weights = {"mask": 1.0, "purport": 1.0, "dense_category": 0.2, "dense_colour": 0.1}

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device) -> None:
        self.model, self.shape, self.device = model, shape, device
        self.codes = Codes()
        width = model.segmenter.config.decoder.hidden_size
        self.dense = nn.Linear(width, len(CATEGORY_NAMES) + len(COLOUR_NAMES)).to(device)

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        return masks_sample(seed, self.shape.side, self.shape.frames, self.shape.targets)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model.segmenter, self.dense]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        frames, truth = _tensor(samples, "frames"), _tensor(samples, "masks")
        clip = torch.arange(len(frames)).repeat_interleave(truth.shape[1])
        dense = {key: _tensor(samples, key).to(self.device) for key in ("dense_category", "dense_colour")}
        on_device = (part.to(self.device) for part in (_frames(frames), clip, truth.flatten(0, 1)))
        return self.batch_losses(*on_device, *self._codes(samples), dense)

    def batch_losses(
        self, frames: Tensor, clip: Tensor, truth: Tensor, referring: Tensor, purport: Tensor, dense: dict[str, Tensor]
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of frames, uint8 (f, 3, s, s), and what they show; for `clip` to `purport` see `unrolled_losses`.

        `dense` has the labels of the frames' cells, int64 (f, rows, columns).
        """
        features = self.model.segmenter.encode(frames)
        out, figures = unrolled_losses(
            self.model, features, clip, truth, referring, purport, weights={"bce": 5.0, "dice": 1.0}
        )
        cells = self.dense(features.embedding.permute(0, 2, 3, 1))
        split = cells.split([len(CATEGORY_NAMES), len(COLOUR_NAMES)], dim=-1)
        for part, (key, labels) in zip(split, dense.items(), strict=True):
            out[key] = F.cross_entropy(part.flatten(0, 2).float(), labels.flatten(), ignore_index=-1)
        return out, figures

    def _codes(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        """Codes of all targets with parts left out at random, as instructions leave things unsaid, and noise."""
        boxes, category, colour = (_tensor(samples, key).flatten(0, 1) for key in ("boxes", "category", "colour"))
        referring = self.codes.referring(boxes, category, colour)
        purport = self.codes.purport(category, colour)
        n = len(boxes)
        draw = torch.rand(n, 4)
        referring[draw[:, 0] < 0.15, PLACE.start : EXTENT.stop] = 0
        drop_category, drop_colour = (draw[:, 1] < 0.1), (draw[:, 2] < 0.2)
        referring[drop_category, CATEGORY] = 0
        referring[drop_colour, COLOUR] = 0
        purport[drop_category, CATEGORY] = 1
        purport[drop_colour, COLOUR] = 1
        # The brain's codes come out shrunk and noisy where it is unsure; so do these.
        shrink = 1 - 0.5 * draw[:, 3:] ** 2
        return (referring * shrink + 0.2 * torch.randn_like(referring)).to(self.device), purport.to(self.device)


class LanguageStage:
    """Instruction to answer and codes: the whole brain; word-patch losses continue, on more frames than are read.

    Words cost the language model far more than frames cost the vision tower, and frames are what the tower still lacks.
    """

    weights = {
        "text": 1.0,
        "code": 1.0,
        "purport_code": 0.5,
        "word_category": 0.6,
        "word_colour": 0.3,
        "word_region": 0.3,
    }

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device) -> None:
        self.model, self.shape, self.device = model, shape, device
        self.naming = Naming(model).to(device)
        self.codes = Codes()

    def sample(self, seed: int) -> tuple[LanguageSample, dict[str, np.ndarray]]:
        return language_sample(seed, self.shape.side), words_sample(seed + 50_000_000, self.shape.side)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model.brain, self.naming]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        read, looked = [s[0] for s in samples], [s[1] for s in samples]
        batch = pack(self.model.brain.template, [[((t.question, t.answer),) for t in s.turns] for s in read])
        frames = torch.from_numpy(np.stack([s.frame for s in read])[:, None])
        frames = torch.cat([_frames(frames), _frames(_tensor(looked, "frames"))])
        cells = {
            key: torch.cat([_tensor([s.cells for s in read], key), _tensor(looked, key).flatten(0, 1)])
            for key in self.naming.names
        }
        codes = (code.to(self.device) for code in codes_of(self.codes, [t for s in read for t in s.turns]))
        return self.batch_losses(batch.to(self.device), frames.to(self.device), cells, *codes)

    def batch_losses(
        self, batch: Packed, frames: Tensor, cells: dict[str, Tensor], referring_code: Tensor, purport_code: Tensor
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of packed turns, one row per image, and of frames whose first ones are those images.

        Args:
            batch: the turns.
            frames: uint8 (n, 3, s, s).
            cells: labels of the frames' cells, int64 (n, rows, columns).
            referring_code, purport_code: of every target, (targets, 128).
        """
        brain = self.model.brain
        tokens = project(brain, brain.preprocess(frames))
        hidden = packed_hidden(brain, batch, tokens[: len(batch.ids)])
        out, figures = self.naming.losses(self.model, tokens, cells)
        said, more = answer_losses(brain, hidden, batch, referring_code, purport_code)
        return {**out, **said}, {**figures, **more}


class JoinStage:
    """Instruction to masks, end to end, with the paper's losses; codes and word-patch losses stay as light anchors.

    As in the paper the image encoder is fixed and the mask decoder, phi and the brain learn. Normalisation statistics
    are those of inference.
    """

    weights = {
        "text": 1.0,
        "mask": 1.0,
        "purport": 1.0,
        "code": 0.2,
        "word_category": 0.1,
        "word_colour": 0.05,
        "word_region": 0.05,
    }

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device, config: JoinConfig | None = None) -> None:
        self.model, self.shape, self.device, self.config = model, shape, device, config or JoinConfig()
        self.naming = Naming(model).to(device)
        self.codes = Codes()

    def sample(self, seed: int) -> JoinSample:
        shape, brain = self.shape, self.model.brain
        cells = round(brain.family.image_tokens**0.5)
        return join_sample(seed, shape.side, brain.config.image_side, shape.frames, shape.targets, cells)

    def modules(self) -> Iterable[nn.Module]:
        self.model.segmenter.image_encoder.requires_grad_(False)
        return [self.model, self.naming]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        turns = [[((t.question, t.answer),) for t in s.turns] for s in samples]
        batch = pack(self.model.brain.template, turns, [list(s.misled) for s in samples])
        read = _frames(torch.from_numpy(np.stack([s.read for s in samples])[:, None]))
        cells = {key: _tensor([s.cells for s in samples], key) for key in self.naming.names}
        frames = _frames(torch.from_numpy(np.stack([s.frames for s in samples])))
        truth = torch.from_numpy(np.concatenate([s.masks for s in samples]))
        misled = [bad for s in samples for t, bad in zip(s.turns, s.misled, strict=True) for _ in t.targets]
        code, _ = codes_of(self.codes, [t for s in samples for t in s.turns])
        on_device = (part.to(self.device) for part in (frames, truth, torch.tensor(misled), code))
        return self.batch_losses(batch.to(self.device), read.to(self.device), cells, *on_device)

    def batch_losses(
        self,
        batch: Packed,
        read: Tensor,
        cells: dict[str, Tensor],
        frames: Tensor,
        truth: Tensor,
        misled: Tensor,
        code: Tensor,
        reread: OwnAnswers = own_answers,
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of packed turns about the first frames of clips.

        Args:
            batch: the turns, one row per clip.
            read: uint8 (b, 3, s, s), the first frames as the brain sees them.
            cells: labels of the cells of `read`, int64 (b, rows, columns).
            frames: uint8 (b * t, 3, side, side), clip after clip, as the perception sees them.
            truth: bool (n, t, h, w), masks of every target on the decoder's grid.
            misled: bool (n,), see `train.synthtrack_samples.JoinSample`.
            code: of every target, (n, 128).
            reread: see `train.packing.own_answers`.
        """
        brain = self.model.brain
        self.model.segmenter.image_encoder.eval()
        brain.vision.eval()
        tokens = project(brain, brain.preprocess(read))
        out, figures = self.naming.losses(self.model, tokens, cells)
        hidden = packed_hidden(brain, batch, tokens)
        logits, labels = packed_logits(brain, hidden, batch)
        out["text"] = text_loss(logits, labels)
        figures["token_acc"] = (logits.argmax(-1) == labels).float().mean().item()

        ids = reread(brain, hidden, batch, 0.5)
        referring, purport = packed_queries(brain, packed_hidden(brain, batch, tokens, ids), batch)
        learn = ~misled & ~mistaken(batch, ids)
        figures["honest"] = learn.float().mean().item()
        out["code"] = code_loss(referring[learn], code[learn])
        features = self.model.segmenter.encode(frames)
        failures = self._failures(batch.row, truth.shape[1])
        if failures is not None:
            learn = learn & (failures.since >= truth.shape[1])
        more, seen = unrolled_losses(
            self.model, features, batch.row, truth, referring, purport, learn, failures=failures
        )
        return {**out, **more}, {**figures, **seen}

    def _failures(self, clip: Tensor, steps: int) -> Failures | None:
        """Failures of a share of targets, each by another target of its clip (int64 (n,)), where that has another."""
        if not (self.config.swap or self.config.drift) or not len(clip):
            return None
        same = (clip.unsqueeze(0) == clip.unsqueeze(1)) & ~torch.eye(len(clip), dtype=torch.bool, device=clip.device)
        others = torch.multinomial(same.float() + 1e-9, 1).squeeze(1)
        draw = torch.rand(len(clip), device=clip.device)
        fails = (draw < self.config.swap + self.config.drift) & same.any(1)
        since = torch.randint(1, max(2, steps), (len(clip),), device=clip.device)
        return Failures(torch.where(fails, since, steps), others, draw < self.config.swap)


STAGES: dict[str, type[Stage]] = {
    "tracking": TrackingStage,
    "words": WordsStage,
    "masks": MasksStage,
    "language": LanguageStage,
    "join": JoinStage,
    "seeing": SeeingStage,
    "pointing": PointingStage,
    "memory": MemoryTrackingStage,
    "box": BoxTrackingStage,
}


def stage_class(name: str) -> Any:
    """The stage of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in STAGES:
        raise UsageError(f"stage `{name}` is not one of {', '.join((*STAGES, *TRL_STAGES))}")
    return STAGES[name]


def make_stage(config: TrainConfig, model: Any, device: torch.device) -> Stage:
    """The stage that a configuration names, for a model."""
    if config.stage == "memory":
        return _memory_stage(config, model, device)
    if config.stage == "box":
        return BoxTrackingStage(model, config.box, device)
    if config.stage == "seeing":
        return SeeingStage(model, config.shape, config.seeing, device)
    if config.stage == "join":
        return JoinStage(model, config.shape, device, config.join)
    return stage_class(config.stage)(model, config.data if config.stage == "tracking" else config.shape, device)


def _memory_stage(config: TrainConfig, model: Any, device: torch.device) -> Stage:
    """The stage "memory" with the steps of its network."""
    if isinstance(model, MaskPropagation):
        return MemoryTrackingStage(model, config.shape, config.memory, device)
    from train.sam2_tracking import Sam2Steps

    return MemoryTrackingStage(model, config.shape, config.memory, device, Sam2Steps(model), whole=True)
