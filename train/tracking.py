"""The stage of all three parts of TrackGPT's recipe: images, referring videos, instructions (paper sections 3.5, 4.1).

What differs between the parts is the mixture and the number of frames; what is learned and how is the same: text,
masks and purport score, with propagation unrolled over I_0, I_t, I_{t+1} exactly as inference runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trackgpt.errors import UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.perception.encoders import Features
from trackgpt.systems.trackgpt import TrackGPT
from train.config import DataConfig
from train.feature_cache import FeatureCache, as_features
from train.losses import Losses, mask_costs, mask_iou, mean_cost, purport_loss, text_loss
from train.mixture import Mixture, shares
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
from train.plan import SEED_STRIDE
from train.sources import SampleSpec, Source, TrackingSample, open_source
from train.truth import TrueMasks


def open_sources(config: DataConfig) -> list[Source]:
    """The data sets of a configuration, in the order in which its mixture names them.

    Raises:
        UsageError: it names none, or one that nobody knows.
        InputError: one is not below its root.
    """
    if not config.mixture:
        raise UsageError("data.mixture: names no data set; see configs/trackgpt/recipe")
    return [
        open_source(name, Path(config.roots.get(name, config.root)), config.splits.get(name, ""), config.wordings)
        for name in _shares(config)
    ]


def _shares(config: DataConfig) -> dict[str, float]:
    return shares({name: (kind.weight, kind.sets) for name, kind in config.mixture.items()})


class MixtureSamples:
    """The mixture of a configuration; sample i is a function of (seed, i). Sets are opened at the first sample."""

    def __init__(self, config: DataConfig, spec: SampleSpec, cache: FeatureCache | None = None) -> None:
        self.config, self.spec, self.cache = config, spec, cache
        self.shares = _shares(config)

    @cached_property
    def sources(self) -> list[Source]:
        """The sets in the order of `shares`."""
        return open_sources(self.config)

    def __call__(self, number: int) -> TrackingSample:
        """The sample of a run: number = seed * SEED_STRIDE + i.

        Raises:
            InputError: its files are missing or damaged.
        """
        seed, i = divmod(number, SEED_STRIDE)
        mixture = Mixture(tuple(map(len, self.sources)), tuple(self.shares.values()), seed)
        drawn = mixture(i)
        sample = self.sources[drawn.source].sample(drawn.item, self.spec, np.random.default_rng([seed, 13, i]))
        if self.cache is None or not sample.pictures:
            return sample
        return replace(sample, features=self.cache.read(sample.pictures))

    def pictures(self) -> list[str]:
        """Every picture that a sample may show to the perception, each once, in order of name."""
        return sorted({picture for source in self.sources for picture in source.pictures()})


class TrackingStage:
    """Instruction to masks over time, with the paper's losses. The image encoder is frozen, as SAM's is.

    Every call runs the same submodules in the same number, whatever the batch holds, because processes of ZeRO-3 wait
    for each other at each of them: a batch without targets decodes one whose loss is 0.
    """

    weights = {"text": 1.0, "mask": 1.0, "purport": 1.0}

    def __init__(self, model: TrackGPT, data: DataConfig, device: torch.device) -> None:
        self.model, self.data, self.device = model, data, device
        brain, perception = model.brain.config, model.config.perception
        self.spec = SampleSpec(
            perception.image_side, brain.image_side, brain.fit, data.frames, data.turns, data.targets, data.gap,
            echo=data.echo, original=data.mask_loss == "original",
        )  # fmt: skip
        self.cache = FeatureCache(data.cache, model.segmenter) if data.cache else None
        self.samples = MixtureSamples(data, self.spec, self.cache)

    def sample(self, number: int) -> TrackingSample:
        """A sample of the mixture."""
        return self.samples(number)

    def modules(self) -> Iterable[nn.Module]:
        """The whole model; what does not learn has its gradients off."""
        # SAM's two encoders are fixed; of the prompt encoder only this is in use.
        self.model.segmenter.image_encoder.requires_grad_(False)
        self.model.segmenter.no_mask_embed.requires_grad_(False)
        return [self.model]

    def picture(self, samples: list[Any]) -> np.ndarray:
        """The samples as a picture; see `train.sample_sheet`."""
        from train.sample_sheet import sheet

        return sheet(samples)

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        """Text, mask and purport loss of a batch of samples."""
        brain = self.model.brain
        batch = pack(brain.template, [list(sample.turns) for sample in samples])
        read = torch.from_numpy(np.stack([sample.read for sample in samples])).permute(0, 3, 1, 2)
        targets = targets_of(samples, self.data.frames, self.device, self.spec.original)
        pixels = brain.preprocess(read.to(self.device))
        return self.batch_losses(batch.to(self.device), pixels, targets, self._cached(samples))

    def batch_losses(
        self,
        batch: Packed,
        pixels: Tensor,
        targets: Targets,
        cached: Features | None = None,
        reread: OwnAnswers = own_answers,
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of packed turns about the first frames of clips.

        Args:
            batch: the turns, one row per clip.
            pixels: the first frames, from `Brain.preprocess`.
            targets: of all turns, with their frames.
            cached: features of these frames; None encodes them.
            reread: see `train.packing.own_answers`.
        """
        brain, segmenter = self.model.brain, self.model.segmenter
        segmenter.image_encoder.eval()
        brain.vision.eval()
        tokens = project(brain, pixels)
        hidden = packed_hidden(brain, batch, tokens)
        logits, labels = packed_logits(brain, hidden, batch)
        learn = None
        if self.data.own_answers:
            ids = reread(brain, hidden, batch, self.data.own_answers)
            hidden, learn = packed_hidden(brain, batch, tokens, ids), ~mistaken(batch, ids)
        queries = targets.with_queries(*packed_queries(brain, hidden, batch))
        features = cached or segmenter.encode(targets.frames)
        losses, figures = mask_losses(unroll(self.model, features, queries, self.data.detach), targets, learn)
        with torch.no_grad():
            figures["token_acc"] = (logits.argmax(-1) == labels).float().mean().item()
        return {"text": text_loss(logits, labels), **losses}, figures

    @cached_property
    def _blank(self) -> dict[str, Tensor]:
        """Features for a batch of words alone: the encoder must not run where other processes do not run it."""
        assert self.cache is not None
        some = next(picture for source in self.samples.sources for picture in source.pictures())
        return {name: torch.zeros_like(value) for name, value in self.cache.read([some]).items()}

    def _cached(self, samples: list[TrackingSample]) -> Features | None:
        """Features of all frames of a batch from the cache, if there is one."""
        if self.cache is None:
            return None
        cached = [sample.features for sample in samples if sample.features] or [self._blank]
        parts = {name: torch.cat([each[name] for each in cached]) for name in cached[0]}
        return as_features(parts, next(self.model.segmenter.mask_decoder.parameters()))


@dataclass(frozen=True)
class Targets:
    """The targets of a batch over time, t_max frames each; a target of fewer frames ends earlier.

    Attributes:
        frames: uint8 (f, 3, side, side), the frames of all samples one after the other.
        first: int64 (n,), where a target's sample begins in `frames`.
        length: int64 (n,), how many frames it has.
        truths: their masks, block after block.
        steps: t_max, the same for every batch of a run.
    """

    frames: Tensor
    first: Tensor
    length: Tensor
    truths: tuple[TrueMasks, ...]
    steps: int

    def with_queries(self, referring: Tensor, purport: Tensor) -> Queries:
        """The targets with the brain's queries; without any target, one whose loss is 0."""
        if len(self.first):
            return Queries(referring, purport, self.first, self.length, self.steps)
        zero = referring.new_zeros(1, referring.shape[1]) + 0 * (referring.sum() + purport.sum())
        nothing = torch.zeros(1, dtype=torch.long, device=referring.device)
        return Queries(zero, zero, nothing, nothing, self.steps)


@dataclass(frozen=True)
class Queries:
    """Q_R, Q_p (n, c) of targets, and where their frames are; see `Targets`."""

    referring: Tensor
    purport: Tensor
    first: Tensor
    length: Tensor
    steps: int


@dataclass(frozen=True)
class Failures:
    """Targets whose tracking is made to fail, so that their purport score can learn what that looks like.

    Attributes:
        since: int64 (n,), the frame from which each one fails; `steps` or more where it does not.
        others: int64 (n,), the target whose queries take the place of its own.
        whole: bool (n,), whether Q_R is taken as well as Q_t: the tracker has gone over to another object. Q_p stays.
    """

    since: Tensor
    others: Tensor
    whole: Tensor

    def queries(self, step: int, referring: Tensor, online: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Q_R and Q_t (n, c) at a step; Q_t is another's at the first failing step alone, and is then handed on."""
        gone = (self.whole & (self.since <= step)).unsqueeze(1)
        lost = (self.since == step).unsqueeze(1)
        referring = torch.where(gone, referring[self.others], referring)
        return referring, online if online is None else torch.where(lost, online[self.others], online)


@dataclass(frozen=True)
class Unrolled:
    """Logits (n, t, h, w) and purport scores (n, t) of all targets."""

    logits: Tensor
    scores: Tensor


def targets_of(samples: list[TrackingSample], steps: int, device: torch.device, original: bool = False) -> Targets:
    """The frames and targets of a batch of samples of at most `steps` frames; without any frame, one grey one.

    With `original` masks have the size of their frames, and a block each sample.
    """
    frames, first, length = [], [], []
    begun = 0
    for sample in samples:
        t = len(sample.frames)
        frames.append(sample.frames)
        first += [begun] * len(sample.masks)
        length += [t] * len(sample.masks)
        begun += t
    if not begun:
        frames.append(np.full((1, *samples[0].frames.shape[1:]), 124, np.uint8))
    truths = tuple(map(own_size, samples)) if original else (on_one_grid(samples, steps),)
    where = [torch.tensor(values, dtype=torch.long, device=device) for values in (first, length)]
    pixels = torch.from_numpy(np.concatenate(frames)).permute(0, 3, 1, 2).to(device)
    return Targets(pixels, *where, tuple(truth.to(device) for truth in truths), steps)


def on_one_grid(samples: list[TrackingSample], steps: int) -> TrueMasks:
    """The masks of all samples, on the decoder's grid, padded to `steps` frames."""
    masks, ignored = [], []
    for sample in samples:
        pad = ((0, steps - len(sample.frames)), (0, 0), (0, 0))
        masks += [np.pad(mask, pad) for mask in sample.masks]
        ignored += [np.pad(sample.ignored, pad)] * len(sample.masks)
    shape = (-1, steps, *samples[0].masks.shape[-2:])
    return TrueMasks(*(torch.from_numpy(np.array(m, bool).reshape(shape)) for m in (masks, ignored)))


def own_size(sample: TrackingSample) -> TrueMasks:
    """The masks of one sample, of the size of its frames."""
    masks, box = torch.from_numpy(sample.masks), fit(sample.masks.shape[-2:], sample.frames.shape[1])
    return TrueMasks(masks, torch.from_numpy(sample.ignored.copy()).expand_as(masks), box)


def unroll(
    model: TrackGPT, features: Features, queries: Queries, detach: bool = False, failures: Failures | None = None
) -> Unrolled:
    """Decode targets frame by frame, passing Q_t on, as the online loop does.

    Targets that have ended are decoded on their last frame, unread, so that every step has the same rows.
    """
    online = None
    logits, scores = [], []
    for step in range(queries.steps):
        place = queries.first + torch.clamp(queries.length - 1, max=step).clamp(min=0)
        referring = queries.referring
        if failures is not None:
            referring, online = failures.queries(step, referring, online)
        decoded = model.segmenter.decode(features.of(place), referring, online, queries.purport)
        online = decoded.online.detach() if detach else decoded.online
        logits.append(decoded.logits)
        scores.append(decoded.score)
    return Unrolled(torch.stack(logits, 1), torch.stack(scores, 1))


def mask_losses(
    unrolled: Unrolled,
    targets: Targets,
    learn: Tensor | None = None,
    weights: Mapping[str, float] | None = None,
) -> tuple[Losses, dict[str, float]]:
    """Mask and purport loss over all frames of all targets, and their IoU.

    Args:
        unrolled: of `unroll`.
        targets: the truth.
        learn: (n,) bool, False for targets whose masks are not to be learned (their purport score is).
        weights: "bce" and "dice"; the paper's by default.
    """
    steps = torch.arange(targets.steps, device=unrolled.scores.device)
    there = steps < targets.length.unsqueeze(1)  # (n, t)
    if not there.any():
        nothing = 0 * (unrolled.logits.float().sum() + unrolled.scores.float().sum())
        return {"mask": nothing, "purport": nothing}, {}
    rows = there if learn is None else there & learn.unsqueeze(1)
    costs, overlaps, marked, begun = [], [], [], 0
    for truth in targets.truths:
        n, t = truth.masks.shape[:2]
        own = slice(begun, begun + n), slice(0, t)
        here, learned, logits, begun = there[own], rows[own], unrolled.logits[own], begun + n
        found = truth.at(logits[learned])
        costs.append(mask_costs(found, truth.masks[learned], ignored=truth.ignored[learned], **(weights or {})))
        with torch.no_grad():
            overlaps.append(mask_iou(truth.at(logits[here]), truth.masks[here], truth.ignored[here]))
            marked.append(truth.masks[here].flatten(1).any(-1))
    overlap = torch.cat(overlaps)
    losses = {
        "mask": mean_cost(torch.cat(costs)),
        "purport": purport_loss(unrolled.scores[there], overlap),
    }
    seen = rows[there] & torch.cat(marked)
    last = seen & (steps == targets.length.unsqueeze(1) - 1)[there]
    figures = {name: overlap[at].mean().item() for name, at in (("iou", seen), ("iou_last", last)) if at.any()}
    return losses, figures


def unrolled_losses(
    model: TrackGPT,
    features: Features,
    clip: Tensor,
    truth: Tensor,
    referring: Tensor,
    purport: Tensor,
    learn: Tensor | None = None,
    weights: Mapping[str, float] | None = None,
    failures: Failures | None = None,
) -> tuple[Losses, dict[str, float]]:
    """Losses of targets in clips of one length, without ignored pixels.

    Args:
        model: decodes.
        features: of all clips' frames, clip after clip.
        clip: (n,) int64, the clip of each target.
        truth: (n, t, h, w) bool on the decoder's grid.
        referring, purport: (n, c).
        learn, weights: see `mask_losses`.
        failures: see there.
    """
    steps = truth.shape[1]
    length = torch.full_like(clip, steps)
    truths = (TrueMasks(truth, torch.zeros_like(truth)),)
    targets = Targets(features.embedding, clip * steps, length, truths, steps)
    unrolled = unroll(model, features, targets.with_queries(referring, purport), failures=failures)
    return mask_losses(unrolled, targets, learn, weights)
