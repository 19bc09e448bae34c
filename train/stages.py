"""What differs between stages: which samples, which parameters, which losses. The loop is `train.loop.fit`.

Foundation (it plays the part of SAM's and LLaVA's pre-training, of which nano has none):
    words     the vision tower learns to lay patches on the words that name them
    masks     the perception part learns to follow a fixed code of a target (`train.codes`), propagation unrolled
    language  the brain learns to describe, count, locate and to answer instructions, and to write those codes
Then, with the losses of paper section 3.5:
    join      instruction to masks, end to end, unrolled over I_0, I_t, I_t+1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.synthtrack.wordings import REGIONS
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import CATEGORY, CATEGORY_NAMES, COLOUR, COLOUR_NAMES, EXTENT, PLACE, Codes
from train.losses import text_loss, word_patch_loss
from train.packing import mistaken, own_answers, pack, packed_hidden, packed_logits, packed_queries, project
from train.samples import (
    Lesson,
    Reading,
    join_sample,
    masks_sample,
    reading_sample,
    words_sample,
)
from train.shape import Shape
from train.tracking import unrolled_losses

Losses = dict[str, Tensor]


class Stage(Protocol):
    """A stage of the recipe."""

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


class Naming(nn.Module):
    """Names of categories, colours and regions as rows of the language model's own embedding, mean over tokens."""

    def __init__(self, model: TrackGPT) -> None:
        super().__init__()
        template = model.brain.template
        self.scale = nn.Parameter(torch.tensor(10.0))
        tables = {"category": CATEGORY_NAMES, "colour": COLOUR_NAMES, "region": REGIONS}
        self.names = {key: [template.encode(f" {name}") for name in table] for key, table in tables.items()}

    def losses(self, model: TrackGPT, tokens: Tensor, cells: dict[str, Tensor]) -> tuple[Losses, dict[str, float]]:
        """Word-patch losses of image tokens (b, cells, h) with labels (b, rows, columns), -1 where nothing is named."""
        embedding = model.brain.llava.get_input_embeddings()
        out: Losses = {}
        figures: dict[str, float] = {}
        for key, names in self.names.items():
            words = torch.stack([embedding.weight[ids].mean(0) for ids in names])
            labels = cells[key].flatten().to(tokens.device)
            patches, right = tokens.flatten(0, 1)[labels >= 0], labels[labels >= 0]
            out[f"word_{key}"] = word_patch_loss(patches, words, right, self.scale)
            with torch.no_grad():
                picked = (F.normalize(patches.float(), dim=-1) @ F.normalize(words.float(), dim=-1).t()).argmax(1)
                figures[f"{key}_acc"] = (picked == right).float().mean().item()
        return out, figures


def _tensor(samples: list[dict[str, np.ndarray]], key: str) -> Tensor:
    return torch.from_numpy(np.stack([s[key] for s in samples]))


def _frames(array: Tensor) -> Tensor:
    """uint8 (..., s, s, 3) to (n, 3, s, s)."""
    return array.flatten(0, -4).permute(0, 3, 1, 2)


class Words:
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
        cells = {key: _tensor(samples, key).flatten(0, 1) for key in self.naming.names}
        tokens = project(self.model.brain, self.model.brain.preprocess(frames))
        out, figures = self.naming.losses(self.model, tokens, cells)
        logit = self.objectness(tokens).flatten()
        out["background"] = F.binary_cross_entropy_with_logits(
            logit.float(), (cells["category"].flatten() >= 0).float().to(self.device)
        )
        return out, figures


class Masks:
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
        frames = _tensor(samples, "frames")
        b = len(frames)
        features = self.model.segmenter.encode(_frames(frames).to(self.device))
        truth = _tensor(samples, "masks").to(self.device)
        k = truth.shape[1]
        referring, purport = self._codes(samples)
        clip = torch.arange(b, device=self.device).repeat_interleave(k)
        out, figures = unrolled_losses(
            self.model, features, clip, truth.flatten(0, 1), referring, purport, weights={"bce": 5.0, "dice": 1.0}
        )
        cells = self.dense(features.embedding.permute(0, 2, 3, 1))
        split = cells.split([len(CATEGORY_NAMES), len(COLOUR_NAMES)], dim=-1)
        for part, key in zip(split, ("dense_category", "dense_colour"), strict=True):
            labels = _tensor(samples, key).to(self.device).flatten()
            out[key] = F.cross_entropy(part.flatten(0, 2).float(), labels, ignore_index=-1)
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


class Language:
    """Instruction to answer and codes: the whole brain; word-patch losses go on beside, on more frames than are read.

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

    def sample(self, seed: int) -> tuple[Reading, dict[str, np.ndarray]]:
        return reading_sample(seed, self.shape.side), words_sample(seed + 50_000_000, self.shape.side)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model.brain, self.naming]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        brain = self.model.brain
        read, looked = [s[0] for s in samples], [s[1] for s in samples]
        batch = pack(brain.template, [[((t.question, t.answer),) for t in s.turns] for s in read]).to(self.device)
        frames = torch.from_numpy(np.stack([s.frame for s in read])[:, None])
        frames = torch.cat([_frames(frames), _frames(_tensor(looked, "frames"))])
        tokens = project(self.model.brain, brain.preprocess(frames.to(self.device)))
        hidden = packed_hidden(brain, batch, tokens[: len(read)])
        cells = {
            key: torch.cat([_tensor([s.cells for s in read], key), _tensor(looked, key).flatten(0, 1)])
            for key in self.naming.names
        }
        out, figures = self.naming.losses(self.model, tokens, cells)
        logits, labels = packed_logits(brain, hidden, batch)
        out["text"] = text_loss(logits, labels)
        referring, purport = packed_queries(brain, hidden, batch)
        turns = [t for s in read for t in s.turns]
        boxes = torch.from_numpy(np.concatenate([t.boxes for t in turns]))
        kinds = torch.tensor([c for t in turns for c in t.category]), torch.tensor([c for t in turns for c in t.colour])
        wanted = self.codes.referring(boxes, *kinds).to(self.device)
        out["code"] = code_loss(referring, wanted)
        out["purport_code"] = code_loss(purport, self.codes.purport(*kinds).to(self.device))
        with torch.no_grad():
            figures["place_mse"] = code_loss(referring[:, PLACE], wanted[:, PLACE]).item()
            figures["what_mse"] = code_loss(referring[:, CATEGORY], wanted[:, CATEGORY]).item()
            figures["token_acc"] = (logits.argmax(-1) == labels).float().mean().item()
        return out, figures


class Join:
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

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device) -> None:
        self.model, self.shape, self.device = model, shape, device
        self.naming = Naming(model).to(device)
        self.codes = Codes()

    def sample(self, seed: int) -> Lesson:
        shape, read = self.shape, self.model.brain.config.image_side
        return join_sample(seed, shape.side, read, shape.frames, shape.targets)

    def modules(self) -> Iterable[nn.Module]:
        self.model.segmenter.image_encoder.requires_grad_(False)
        return [self.model, self.naming]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        brain = self.model.brain
        self.model.segmenter.image_encoder.eval()
        brain.vision.eval()
        turns = [[((t.question, t.answer),) for t in s.turns] for s in samples]
        batch = pack(brain.template, turns, [list(s.misled) for s in samples]).to(self.device)
        read = torch.from_numpy(np.stack([s.read for s in samples])[:, None])
        tokens = project(self.model.brain, brain.preprocess(_frames(read).to(self.device)))
        cells = {key: _tensor([s.cells for s in samples], key) for key in self.naming.names}
        out, figures = self.naming.losses(self.model, tokens, cells)
        hidden = packed_hidden(brain, batch, tokens)
        logits, labels = packed_logits(brain, hidden, batch)
        out["text"] = text_loss(logits, labels)
        figures["token_acc"] = (logits.argmax(-1) == labels).float().mean().item()

        ids = own_answers(brain, hidden, batch, share=0.5)
        referring, purport = packed_queries(brain, packed_hidden(brain, batch, tokens, ids), batch)
        misled = torch.tensor(
            [bad for s in samples for t, bad in zip(s.turns, s.misled, strict=True) for _ in t.targets]
        )
        learn = ~misled.to(self.device) & ~mistaken(batch, ids)
        figures["honest"] = learn.float().mean().item()
        every = [t for s in samples for t in s.turns]
        boxes = torch.from_numpy(np.concatenate([t.boxes for t in every]))
        kinds = torch.tensor([c for t in every for c in t.category]), torch.tensor([c for t in every for c in t.colour])
        out["code"] = code_loss(referring[learn], self.codes.referring(boxes, *kinds).to(self.device)[learn])

        truth = torch.from_numpy(np.concatenate([s.masks for s in samples])).to(self.device)
        frames = torch.from_numpy(np.stack([s.frames for s in samples]))
        features = self.model.segmenter.encode(_frames(frames).to(self.device))
        more, seen = unrolled_losses(self.model, features, batch.row, truth, referring, purport, learn)
        return {**out, **more}, {**figures, **seen}


def code_loss(written: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of codes (n, c); a batch in which no instruction has a target costs nothing."""
    return F.mse_loss(written.float(), wanted) if len(wanted) else written.sum() * 0


STAGES: dict[str, Callable[[TrackGPT, Shape, torch.device], Stage]] = {
    "words": Words,
    "masks": Masks,
    "language": Language,
    "join": Join,
}
