"""nano-memory: mask propagation in a search window around the last mask, as a memory network of the shared loop.

Holds weights only. What it knows of a target is a frozen `WindowMemory`: a few remembered windows, the last mask, and
where to look next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, image_of
from trackgpt.perception.encoders import normalise
from trackgpt.perception.mask_propagation import (
    SURE,
    Maps,
    MaskPropagation,
    Propagated,
    Reference,
    Shown,
    bumps,
    filled,
)
from trackgpt.perception.memory_segmenter import Asked, Hypothesis, Segmented, embedding_of
from trackgpt.perception.search_window import Gaze, SearchWindow, extent, without_strays
from trackgpt.settings import read, to_dict
from trackgpt.types import VisualPrompt

Place: TypeAlias = tuple[float, float, float, float]
WHOLE: Place = (0.0, 0.0, 1.0, 1.0)
FEWEST_PIXELS = 12
"""Of a mask that moves the window."""


@dataclass(frozen=True)
class WindowSettings:
    """How the network is used. These change what is computed, and need no training.

    Attributes:
        zoom: side of the search window in sizes of the target; 0 looks at whole frames.
        smallest: least side of the window, pixels.
        lead: share of a target's last motion that is expected again.
        hint: give the last mask to the next frame.
        carry: carry masks of remembered frames over.
        read: read values of remembered frames.
        steady: views that are remembered beside the shown ones and the last one.
        steady_every: frames between two of them.
        steady_iou: the expected IoU that one must have.
        tidy: drop pieces that lie apart from the last mask.
        presence: the probability below which a target counts as absent.
    """

    zoom: float = field(default=2.0, metadata={"range": (0.0, 100.0)})
    smallest: float = field(default=112.0, metadata={"range": (1.0, 8192.0)})
    lead: float = field(default=0.7, metadata={"range": (0.0, 1.0)})
    hint: bool = True
    carry: bool = True
    read: bool = True
    steady: int = field(default=1, metadata={"range": (0, 64)})
    steady_every: int = field(default=5, metadata={"range": (1, 10**6)})
    steady_iou: float = field(default=0.8, metadata={"range": (0.0, 1.0)})
    tidy: bool = True
    presence: float = field(default=0.5, metadata={"range": (0.0, 1.0)})


ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("everything (the network as it ships)", {}),
    "no-window": ("whole frames instead of a search window", {"zoom": 0.0}),
    "no-hint": ("the last mask is not given to the next frame", {"hint": False, "tidy": False}),
    "no-carried": ("no masks are carried over", {"carry": False}),
    "no-memory": (
        "no values are read, and no views beside the shown and the last one are kept",
        {"read": False, "steady": 0},
    ),
}


@dataclass(frozen=True)
class RememberedWindow:
    """A window that is remembered.

    Attributes:
        key, on, off, value: see `Reference`, one row each, on the CPU.
        place: x, y, width and height in units of the window that follows the target: as that window went along with
            the target, they are the same on every later frame.
    """

    key: Tensor
    on: Tensor
    off: Tensor
    value: Tensor
    place: Place = WHOLE

    def reference(self, following: Place, device: torch.device) -> Reference:
        """As the network takes it; `following` is the window that follows the target, in units of the present one."""
        key, on, off, value = (part.to(device) for part in (self.key, self.on, self.off, self.value))
        (x, y, width, height), (left, top, across, down) = following, self.place
        return Reference(key, on, off, value, (x + left * width, y + top * height, across * width, down * height))


@dataclass(frozen=True)
class WindowMemory:
    """What is known of one target.

    Attributes:
        shown: windows on which it was shown: the first, and the newest correction.
        steady: windows on which it was seen well, newest last: the network's own choice.
        last: the window on which it was last seen.
        logits: float32 (s/4, s/4), its last mask in the window that follows it.
        gaze: where to look next.
        waited: frames since one was added to `steady`.
        kept: windows that it was told to keep (see `NanoMemory.kept`).
    """

    shown: tuple[RememberedWindow, ...]
    steady: tuple[RememberedWindow, ...]
    last: RememberedWindow
    logits: np.ndarray
    gaze: Gaze
    waited: int = 0
    kept: tuple[RememberedWindow, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, of a window that stands at two places twice: what a saved track holds, too."""
        windows = (*self.shown, *self.kept, *self.steady, self.last)
        held = sum(getattr(one, name).nbytes for one in windows for name in ("key", "on", "off", "value"))
        return held + self.logits.nbytes


@dataclass(frozen=True)
class _Look:
    """One window of a frame as the network sees it."""

    image: np.ndarray
    window: SearchWindow
    maps: Maps


class NanoMemory:
    """See the module. Each target has a window of its own, so nothing of a frame is shared or made early."""

    kinds = (WindowMemory, RememberedWindow, Gaze)
    early = False

    def __init__(self, model: MaskPropagation, settings: WindowSettings = WindowSettings()) -> None:
        self.model, self.settings = model, settings
        self.config = model.config

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> NanoMemory:
        """Read a folder of `MaskPropagation.save_pretrained`; the model is folded, in evaluation mode, in float32.

        On a CPU its kernels are packed, and it stays there.

        Raises:
            ModelError: MD01 a file is missing; MD02 a file is damaged, or the weights do not fit the configuration.
        """
        model = MaskPropagation.from_pretrained(folder)
        model.fold()
        if torch.device(device).type != "cpu":
            return cls(model.to(device))
        model.encoder.pack(model.config.side)
        return cls(model)

    def ablated(self, name: str) -> NanoMemory:
        """The same weights with one part switched off (see `ABLATIONS`).

        Raises:
            UsageError: there is no such part.
        """
        if name not in ABLATIONS:
            raise UsageError(f"ablation {name}: not one of {', '.join(ABLATIONS)}")
        return NanoMemory(self.model, replace(self.settings, **ABLATIONS[name][1]))

    def configured(self, settings: Sequence[str]) -> NanoMemory:
        """The same weights, used otherwise: "key=value" of `WindowSettings`.

        Raises:
            UsageError: there is no such setting, or not of this value.
        """
        own = [f"{key}={value}" for key, value in to_dict(self.settings).items()]
        return NanoMemory(self.model, read(WindowSettings, None, [*own, *settings]))

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The frames themselves."""
        return images

    @torch.inference_mode()
    def segment(self, frame: Frame, asked: Sequence[Asked]) -> list[Segmented]:
        """See `MemoryNetwork.segment`; each target is computed alone, so that none changes another by a bit."""
        image = image_of(frame)
        found = [self._segment(image, each) for each in asked]
        return [one if each.judge is None else _judged(each, one) for each, one in zip(asked, found, strict=True)]

    def kept(self, memory: WindowMemory, place: int) -> WindowMemory:
        """See `KeepingNetwork.kept`: the newest window is kept."""
        return replace(memory, kept=(*memory.kept[:place], memory.last, *memory.kept[place + 1 :]))

    def _segment(self, image: np.ndarray, asked: Asked) -> Segmented:
        memory, shown = asked.memory, asked.shown
        if shown is None:
            if memory is None:
                raise UsageError("a target that was never shown cannot be looked for; give its box, mask or points")
            return self._tracked(image, memory, asked.beside)
        if shown.mask is not None:
            return self._given(image, memory, shown.mask)
        return self._prompted(image, memory, shown)

    def _look(self, image: np.ndarray, window: SearchWindow) -> _Look:
        pixels = torch.from_numpy(window.cut(image, self.config.side)).permute(2, 0, 1)[None].to(self._device)
        return _Look(image, window, self.model.encode(normalise(pixels)))

    def window(self, gaze: Gaze, height: int, width: int) -> SearchWindow:
        """Where a target is looked for on a frame."""
        how = self.settings
        if not how.zoom:
            return SearchWindow(0, 0, width, height)
        return gaze.window(how.zoom, height, width, how.smallest, how.lead)

    def _window(self, gaze: Gaze, image: np.ndarray) -> SearchWindow:
        return self.window(gaze, *image.shape[:2])

    # --- the three ways to a mask ---

    def _given(self, image: np.ndarray, memory: WindowMemory | None, mask: np.ndarray) -> Segmented:
        """A mask that is shown is the mask."""
        box = extent(mask)
        if box is None:
            raise UsageError("the mask that was shown is empty; show where the target is")
        gaze = Gaze.at(box)
        look = self._look(image, self._window(gaze, image))
        part = torch.from_numpy(look.window.cut(mask.astype(np.float32), self.config.side))
        logits = 2 * SURE * F.avg_pool2d(part[None, None], 4) - SURE
        view = self._remembered(look, logits)
        return Segmented(mask.astype(bool), 1.0, 1.0, self._begun(memory, view, logits, look, gaze))

    def _prompted(self, image: np.ndarray, memory: WindowMemory | None, shown: VisualPrompt) -> Segmented:
        """A box or points: looked at twice, the second time closer and with the mask of the first."""
        look = self._look(image, self._window_for(image, memory, shown))
        blank = self._blank()
        known = None if memory is None else self._known(memory, look)
        last = blank if memory is None else self._hint(memory, look)
        prompt = self._shown(look.window, shown, last)
        first = self._start(look, shown) if known is None else known
        decoded = self.model.decode(look.maps, prompt, *self._recalled(look.maps, *first, read=known is not None))
        mask = look.window.paste(_numpy(decoded.logits), *image.shape[:2])
        box = extent(mask)
        if box is not None and memory is None and shown.box is None:
            closer = self._window(Gaze.at(_with_points(box, shown)), image)
            if closer.width < 0.8 * look.window.width or closer.height < 0.8 * look.window.height:
                logits = look.window.moved(_handed_on(decoded), closer, -SURE)
                look, made = self._look(image, closer), torch.from_numpy(logits)[None, None].to(self._device)
            else:
                made = torch.from_numpy(_handed_on(decoded))[None, None].to(self._device)
        else:
            made = torch.from_numpy(_handed_on(decoded))[None, None].to(self._device)
        view = self._remembered(look, made).reference(WHOLE, self._device)
        again = ([view], [view]) if memory is None else ([view], self._known(memory, look)[1])
        recalled = self._recalled(look.maps, *again, read=memory is not None)
        decoded = self.model.decode(look.maps, self._shown(look.window, shown, made), *recalled)
        return self._finished(image, memory, look, decoded)

    def _finished(self, image: np.ndarray, memory: WindowMemory | None, look: _Look, decoded: Propagated) -> Segmented:
        """A prompted mask as the beginning, or the new beginning, of a track."""
        mask = look.window.paste(_numpy(decoded.logits), *image.shape[:2])
        box = extent(mask)
        if box is None:  # look here again: the middle half of the window
            x, y, width, height = look.window.x, look.window.y, look.window.width, look.window.height
            box = (x + width / 4, y + height / 4, x + 3 * width / 4, y + 3 * height / 4)
        logits = torch.from_numpy(_handed_on(decoded))[None, None]
        view = self._remembered(look, logits.to(self._device))
        iou, presence = (float(torch.sigmoid(value)) for value in (decoded.iou, decoded.presence))
        return Segmented(mask, iou, presence, self._begun(memory, view, logits, look, Gaze.at(box)))

    def _tracked(self, image: np.ndarray, memory: WindowMemory, beside: bool = False) -> Segmented:
        """The mask on the next frame, and what to remember of it; `beside` see `Asked`."""
        height, width = image.shape[:2]
        look = self._look(image, self._window(memory.gaze, image))
        blank, hint = self._blank(), self._hint(memory, look)
        prompt = Shown(hint if self.settings.hint else blank, blank, blank, blank)
        recalled = self._recalled(look.maps, *self._known(memory, look), read=self.settings.read)
        decoded = self.model.decode(look.maps, prompt, *recalled)
        iou, presence = (float(torch.sigmoid(value)) for value in (decoded.iou, decoded.presence))
        logits = whole = _numpy(decoded.logits)
        if self.settings.tidy:
            logits = without_strays(whole, _numpy(hint))
        seen = presence >= self.settings.presence
        mask = look.window.paste(logits, height, width) if seen else np.zeros((height, width), bool)
        box = extent(mask)
        largest = max(height, width) / max(self.settings.zoom, 1)
        gaze = memory.gaze.following(box if box is not None and mask.sum() >= FEWEST_PIXELS else None, largest)
        waited = memory.waited + 1
        if box is None:
            absent = np.full_like(memory.logits, -SURE)
            later = replace(memory, logits=absent, gaze=gaze, waited=waited)
            return Segmented(mask, iou, presence, later)
        handed = F.avg_pool2d(torch.from_numpy(logits)[None, None], 2).clamp(-SURE, SURE)
        view = self._remembered(look, handed.to(self._device))
        steady = memory.steady
        if self.settings.steady and waited >= self.settings.steady_every and iou >= self.settings.steady_iou:
            steady, waited = (*steady, view)[-self.settings.steady :], 0
        later = WindowMemory(memory.shown, steady, view, handed[0, 0].numpy(), gaze, waited, memory.kept)
        apart = (
            _strays(look.window.paste(np.where(logits == whole, -SURE, whole), height, width), iou) if beside else ()
        )
        return Segmented(mask, iou, presence, later, apart)

    # --- what the network is given ---

    def _shown(self, window: SearchWindow, shown: VisualPrompt, last: Tensor) -> Shown:
        side = self.config.side // 4
        box, (on, off) = _box_in(window, shown), _points_in(window, shown)
        maps = filled(box, side), bumps(on, side), bumps(off, side)
        return Shown(last, *(one.to(self._device) for one in maps))

    def _start(self, look: _Look, shown: VisualPrompt) -> tuple[list[Reference], list[Reference]]:
        """The frame itself as a reference: what lies in the box, or where the clicks are."""
        prompt = self._shown(look.window, shown, self._blank())
        inside = F.avg_pool2d(prompt.box, 2)
        if shown.box is None:
            inside, outside = F.avg_pool2d(prompt.on, 2), torch.zeros_like(inside)
        else:
            outside = 1 - inside
        start = self.model.remember(look.maps, inside, outside)
        return [start], [start]

    def _known(self, memory: WindowMemory, look: _Look) -> tuple[list[Reference], list[Reference]]:
        """What is remembered, as a window shows it: of the last frame, and of those shown and steady."""
        following = self._window(memory.gaze, look.image).seen_from(look.window)
        older = (*memory.shown, *memory.kept, *memory.steady)
        return (
            [memory.last.reference(following, self._device)],
            [one.reference(following, self._device) for one in older],
        )

    def _recalled(self, maps: Maps, last: list[Reference], shown: list[Reference], read: bool) -> tuple[Tensor, Tensor]:
        carried, values = [], []
        for which, references in enumerate((last, shown)):
            masks, found = self.model.recall(maps.key, references, which)
            carried.append(masks if self.settings.carry else torch.zeros_like(masks))
            values.append(found if read and self.settings.read else self.model.unread(maps, which))
        return torch.cat(carried, 1), torch.cat(values, 1)

    def _hint(self, memory: WindowMemory, look: _Look) -> Tensor:
        """The last mask where it is expected in a window, (1, 1, s/4, s/4)."""
        following = self._window(memory.gaze, look.image)
        moved = memory.logits if following == look.window else following.moved(memory.logits, look.window, -SURE)
        return torch.from_numpy(moved)[None, None].to(self._device)

    def _remembered(self, look: _Look, logits: Tensor) -> RememberedWindow:
        on = F.avg_pool2d(torch.sigmoid(logits.to(self._device)), 2)
        made = self.model.remember(look.maps, on, 1 - on)
        kept = (getattr(made, name).float().cpu().contiguous() for name in ("key", "on", "off", "value"))
        return RememberedWindow(*kept)

    def _begun(
        self, memory: WindowMemory | None, view: RememberedWindow, logits: Tensor, look: _Look, gaze: Gaze
    ) -> WindowMemory:
        """The memory after something was shown: the first view stays, the newest correction stands beside it."""
        following, last = self._window(gaze, look.image), logits[0, 0].cpu().numpy()
        if following != look.window:
            last = look.window.moved(last, following, -SURE)
            view = replace(view, place=look.window.seen_from(following))
        return WindowMemory((view,) if memory is None else (memory.shown[0], view), (), view, last, gaze)

    def _window_for(self, image: np.ndarray, memory: WindowMemory | None, shown: VisualPrompt) -> SearchWindow:
        """Where to look at what is shown: around the box, where the track is, or, of points alone, everywhere."""
        height, width = image.shape[:2]
        if shown.box is not None:
            return self._window(Gaze.at(_with_points(shown.box, shown)), image)
        if memory is None:
            return SearchWindow(0, 0, width, height)
        window = self._window(memory.gaze, image)
        right, bottom = window.x + window.width, window.y + window.height
        inside = all(window.x <= x <= right and window.y <= y <= bottom for x, y, _ in shown.points)
        return window if inside else SearchWindow(0, 0, width, height)

    def _blank(self) -> Tensor:
        return torch.zeros(1, 1, self.config.side // 4, self.config.side // 4, device=self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.sharpness.device


def _judged(asked: Asked, found: Segmented) -> Segmented:
    """With the hypothesis of this network, before what lies apart: what it looks like is the mean of its cells' keys.

    Whoever judges decides what is remembered for long, too (see `Asked`).
    """
    x1, y1, x2, y2 = box_of(found.mask).tolist()
    seen = None if np.isnan(x1) else (x1, y1, x2, y2)
    memory: WindowMemory = found.memory
    if not asked.beside:
        memory = replace(memory, steady=())
    look = None if seen is None else embedding_of(memory.last.key[0], memory.last.on[0, 0])
    own = Hypothesis(found.mask, seen, found.iou, look)
    return found._replace(memory=memory, hypotheses=(own, *found.hypotheses))


def _strays(mask: np.ndarray, iou: float) -> tuple[Hypothesis, ...]:
    """What was left out of a mask, bool (height, width), as a hypothesis; none where nothing was."""
    x1, y1, x2, y2 = box_of(mask).tolist()
    return () if np.isnan(x1) else (Hypothesis(mask, (x1, y1, x2, y2), iou, None),)


def _numpy(logits: Tensor) -> np.ndarray:
    return logits[0, 0].float().cpu().numpy()


def _handed_on(decoded: Propagated) -> np.ndarray:
    return F.avg_pool2d(decoded.logits, 2).clamp(-SURE, SURE)[0, 0].float().cpu().numpy()


def _with_points(box: tuple[float, float, float, float], shown: VisualPrompt) -> tuple[float, float, float, float]:
    """The box, made to hold all clicks on the target."""
    on = [(x, y) for x, y, label in shown.points if label]
    xs, ys = [box[0], box[2], *(x for x, _ in on)], [box[1], box[3], *(y for _, y in on)]
    return min(xs), min(ys), max(xs), max(ys)


def _box_in(window: SearchWindow, shown: VisualPrompt) -> Tensor:
    """The box, (1, 4) in units of a window, NaN without one."""
    if shown.box is None:
        return torch.full((1, 4), torch.nan)
    corners = torch.tensor(shown.box, dtype=torch.float32).view(2, 2)
    return _in_units(corners, window).view(1, 4)


def _points_in(window: SearchWindow, shown: VisualPrompt) -> tuple[Tensor, Tensor]:
    """Clicks on the target and beside it, (1, m, 2) each, in units of a window."""
    rows = torch.tensor([point[:2] for point in shown.points], dtype=torch.float32).view(-1, 2)
    labels = torch.tensor([bool(point[2]) for point in shown.points], dtype=torch.bool)
    at = _in_units(rows, window)
    return at[labels][None], at[~labels][None]


def _in_units(points: Tensor, window: SearchWindow) -> Tensor:
    corner = torch.tensor([window.x, window.y], dtype=torch.float32)
    return (points - corner) / torch.tensor([window.width, window.height], dtype=torch.float32)
