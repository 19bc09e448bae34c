"""Detectors that take words instead of classes, as grounders.

Grounding DINO, MM-Grounding-DINO and LLMDet, OWLv2 and OWL-ViT of transformers, with its image processors for Pillow
and its post-processing, so that torchvision is not needed. DINO scores a box by the word that fits it best, and OWL by
all words at once: neither is reliable in place, order and number ("the second from the left").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trackgpt.errors import ModelError
from trackgpt.geometry.boxes import box_iou
from trackgpt.precision import round_frozen
from trackgpt.reasoners.expression import lasting_if_understood
from trackgpt.reasoners.grounder import Candidate, Grounding, Nearby, as_likely
from trackgpt.settings import read_json
from trackgpt.weights import Lazy, checked, describing, read_lazily, refuse_oversized, refuse_pointer, some

CONFIG_FILE = "config.json"
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
CARD_FILE = "README.md"
INSTEAD = "use the folder of IDEA-Research/grounding-dino-tiny or of google/owlv2-base-patch16-ensemble"
LICENCES = {
    "IDEA-Research/grounding-dino-tiny": "apache-2.0",
    "IDEA-Research/grounding-dino-base": "apache-2.0",
    "iSEE-Laboratory/llmdet_large": "apache-2.0",
    "google/owlv2-base-patch16-ensemble": "apache-2.0",
}
"""Of weights on the hub, as their cards say; for folders that have lost theirs. Other cards were not read."""
REFUSED = {"omdet-turbo": "OmDet-Turbo, which needs torchvision and timm"}
MOST_BOXES = 300
"""So many of the surest boxes are looked at; OWLv2 gives one for each of 3,600 cells."""
MOST_ASPECT = 32
"""A frame that is longer is padded: at 1,333 pixels it would have fewer cells than Grounding DINO has queries."""

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ALL = ("all", "every", "each")
_BEFORE_NUMBERS = ("the", "these", "those")
_HARMLESS = ("position_ids", "relative_position_index", "num_batches_tracked")
"""Ends of the names of integers that older transformers wrote and newer ones make anew."""


@dataclass(frozen=True)
class OpenVocabularySettings:
    """From which score on a box is taken to be meant, by transformers' name of the family; and what is one object.

    Read from files by `trackgpt.settings.from_dict`.

    Attributes:
        grounding_dino: least score of a box: IMAT's threshold of a first prompt; Grounding DINO's own demonstration has
            0.35, transformers' default is 0.25.
        mm_grounding_dino: the same for MM-Grounding-DINO and LLMDet, whose scores are of the same kind.
        owlv2: least score of a box, transformers' default. OWL's scores are low, and say little between models.
        owlvit: the same.
        text: least score of a word of DINO's to be part of a label; the default of Grounding DINO and of transformers.
        overlap: boxes with a larger IoU with a surer one are the same object; these detectors suppress none themselves.
            1 keeps all. Our choice: two people rarely overlap more.
    """

    grounding_dino: float = field(default=0.3, metadata={"range": (0, 1)})
    mm_grounding_dino: float = field(default=0.3, metadata={"range": (0, 1)})
    owlv2: float = field(default=0.1, metadata={"range": (0, 1)})
    owlvit: float = field(default=0.1, metadata={"range": (0, 1)})
    text: float = field(default=0.25, metadata={"range": (0, 1)})
    overlap: float = field(default=0.7, metadata={"range": (0, 1)})


@dataclass(frozen=True)
class DetectorFamily:
    """How transformers names the parts of a kind of detector, and how it is asked.

    Attributes:
        model, processor, image_processor: names of classes.
        tokenizer_files: the sets of files of which one must be there.
        phrases: the words are phrases that end with a dot, in lower case, and a score is that of a token; else they are
            one query, padded to its whole length.
    """

    model: str
    processor: str
    image_processor: str
    tokenizer_files: tuple[tuple[str, ...], ...]
    phrases: bool

    def prompt(self, words: str) -> str:
        """The words as the network was trained to read them; empty where they say nothing.

        Dots and question marks are ends of phrases to DINO, which does not look from one phrase into another.
        """
        bare = words.strip(" \t\n.?!,;:")
        if not bare or not self.phrases:
            return bare
        return f"{re.sub(r' *[.?][ .?]*', ', ', bare.lower())}."

    def limit(self, config: Any) -> int:
        """The most tokens, with those at both ends."""
        most = int(config.text_config.max_position_embeddings)
        return min(most, int(config.max_text_len)) if self.phrases else most


_BERT_FILES = (("tokenizer.json",), ("vocab.txt",))
_CLIP_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_DINO = ("GroundingDinoProcessor", "GroundingDinoImageProcessorPil", _BERT_FILES, True)
FAMILIES = {
    "grounding-dino": DetectorFamily("GroundingDinoForObjectDetection", *_DINO),
    "mm-grounding-dino": DetectorFamily("MMGroundingDinoForObjectDetection", *_DINO),
    "owlv2": DetectorFamily("Owlv2ForObjectDetection", "Owlv2Processor", "Owlv2ImageProcessorPil", _CLIP_FILES, False),
    "owlvit": DetectorFamily(
        "OwlViTForObjectDetection", "OwlViTProcessor", "OwlViTImageProcessorPil", _CLIP_FILES, False
    ),
}
"""By `model_type` in config.json."""


def is_open_vocabulary(folder: Path) -> bool:
    """Whether a folder holds a detector that takes words, as far as its config.json says.

    True also for one that `OpenVocabularyGrounder.from_pretrained` refuses with advice; false for detectors of fixed
    classes and for SAM 3.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    config = Path(folder) / CONFIG_FILE
    return config.is_file() and read_json(config).get("model_type") in (*FAMILIES, *REFUSED)


def asks_nothing_shorter(words: str) -> Sequence[str]:
    """No shorter wordings."""
    return ()


class _Shown(NamedTuple):
    """A frame as the network is given it, and what is needed to find the way back; sizes are (height, width)."""

    pixels: dict[str, Tensor]
    size: tuple[int, int]
    padded: tuple[int, int]


class OpenVocabularyGrounder:
    """`Grounder` of one of `FAMILIES`. It holds weights, not state.

    The words go in as they were written. Where nothing reaches the threshold, `shorter` wordings are tried in their
    order, each for another pass of the network, and what they leave out is said not to have been taken into account.

    Args:
        model: filled, in evaluation mode, on its device.
        processor: transformers' own, with tokenizer and image processor.
        kind: which of `FAMILIES`.
        name: for people, e.g. IDEA-Research/grounding-dino-tiny.
        licence: of the weights, e.g. apache-2.0; empty where it is not known.
        dtype: in which it computes; coordinates and scores are float32.
        settings: see there.
        shorter: wordings to try instead of one that finds nothing, the best first: "person in white", "person".
    """

    reads_motion, checks_every = False, 0

    def __init__(
        self,
        model: Any,
        processor: Any,
        kind: str,
        name: str = "",
        licence: str = "",
        dtype: torch.dtype = torch.float32,
        settings: OpenVocabularySettings = OpenVocabularySettings(),
        shorter: Callable[[str], Sequence[str]] = asks_nothing_shorter,
    ) -> None:
        self.model = model
        self.processor = processor
        self.kind = kind
        self.name = name or kind
        self.licence = licence
        self.dtype = dtype
        self.settings = settings
        self.shorter = shorter

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        settings: OpenVocabularySettings = OpenVocabularySettings(),
        shorter: Callable[[str], Sequence[str]] = asks_nothing_shorter,
    ) -> OpenVocabularyGrounder:
        """The detector of a folder as a hub holds it, e.g. of IDEA-Research/grounding-dino-tiny.

        Args:
            folder: config.json, weights, preprocessor_config.json and the tokenizer's files; README.md for its licence.
            device: where it computes.
            dtype: float32, bfloat16, or float16 on a GPU: in 16 bits by autocast, because boxes in bfloat16 alone are
                wrong by up to 4 pixels in 1,920.
            settings, shorter: see the class.

        Raises:
            ModelError: MD01 something is not in the folder; MD02 it is damaged, or lacks a weight; MD06 it is a model
                of another kind, with what to use instead.
        """
        folder = Path(folder)
        kind = _kind(folder)
        processor = _processor(folder, FAMILIES[kind])
        model = _model(folder, FAMILIES[kind])
        _check_words(processor.tokenizer, model.config, folder)
        if dtype == torch.bfloat16:
            round_frozen(model)
        if dtype != torch.float32 and hasattr(model, "box_head"):  # OWL adds places of cells in the dtype of this
            model.box_head.register_forward_hook(lambda module, given, made: made.float())
        name = hub_name(folder)
        return cls(model.to(device), processor, kind, name, licence_of(folder), dtype, settings, shorter)

    def later(self, words: str) -> str:
        """See `Grounder.later`."""
        return lasting_if_understood(words)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.device
        return device

    @torch.inference_mode()
    def ground(self, image: np.ndarray, words: str, nearby: Sequence[Nearby] = ()) -> Grounding:
        """What the words mean on an image, uint8 RGB (height, width, 3).

        One object unless the words begin with "all", "every", "each", "both" or a number (see `meant`); every other box
        that reaches the threshold is a rival. Boxes end at the edges of the image.

        Raises:
            ModelError: MD06, the network gives no numbers in this dtype.
        """
        padded = _padded(image)
        shown = _Shown(self.pixels(padded), image.shape[:2], padded.shape[:2])
        read, unread = self._fitting(words)
        boxes = self._detect(shown, read)
        unjudged = [unread] if unread else []
        for wording in () if boxes else self.shorter(words):
            read, _ = self._fitting(wording)
            boxes = self._detect(shown, read)
            if boxes:
                unjudged = left_out(words, read)
                break
        count = meant(words)
        found, rivals = boxes[:count], boxes[count:]
        alike = [one for one in rivals if as_likely(one, found)]
        others = [one for one in rivals if one not in alike]
        return Grounding(tuple(found), (*alike, *others), tuple(unjudged), alike=len(alike))

    def pixels(self, image: np.ndarray) -> dict[str, Tensor]:
        """What the network is given of an image, by transformers' image processor: a batch of one."""
        made = self.processor.image_processor([image], return_tensors="pt", input_data_format="channels_last")
        return {name: value.to(self.device) for name, value in made.items()}

    def tokens(self, prompt: str) -> dict[str, Tensor]:
        """What the network is given of a prompt: a batch of one."""
        family = FAMILIES[self.kind]
        made = self.processor.tokenizer(
            [prompt],
            padding=False if family.phrases else "max_length",
            truncation=True,
            max_length=family.limit(self.model.config),
            return_token_type_ids=family.phrases,
            return_tensors="pt",
        )
        return {name: value.to(self.device) for name, value in made.items()}

    def _fitting(self, words: str) -> tuple[str, str]:
        """As many of the words as the network reads, and the rest, both as they were written."""
        family, tokenizer, each = FAMILIES[self.kind], self.processor.tokenizer, words.split()
        if not each:
            return "", ""
        room = family.limit(self.model.config) - tokenizer.num_special_tokens_to_add() - family.phrases
        lengths = [len(ids) for ids in tokenizer(each, add_special_tokens=False)["input_ids"]]
        count = int(np.searchsorted(np.cumsum(lengths), room, side="right"))
        return " ".join(each[:count]), " ".join(each[count:])

    def _detect(self, shown: _Shown, words: str) -> list[Candidate]:
        """The boxes that reach the threshold, the surest first, one of each object."""
        prompt = FAMILIES[self.kind].prompt(words)
        if not prompt:
            return []
        tokens = self.tokens(prompt)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.model(**shown.pixels, **tokens)
        output.logits, output.pred_boxes = output.logits.float().cpu(), output.pred_boxes.float().cpu()
        if output.logits.isnan().any() or not output.pred_boxes.isfinite().all():
            dtype = str(self.dtype).removeprefix("torch.")
            raise ModelError(f"{self.name}: gives no numbers in {dtype}; use bfloat16 or float32", "MD06")
        return self._candidates(self._processed(output, tokens, prompt, shown.padded), shown.size)

    def _processed(
        self, output: Any, tokens: Mapping[str, Tensor], prompt: str, size: tuple[int, int]
    ) -> dict[str, Any]:
        """transformers' own reading of an output: scores, boxes in pixels, labels."""
        threshold = getattr(self.settings, self.kind.replace("-", "_"))
        read = self.processor.post_process_grounded_object_detection
        if FAMILIES[self.kind].phrases:
            ids = tokens["input_ids"].cpu()
            found = read(output, ids, threshold, self.settings.text, target_sizes=[size])[0]
        else:
            found = read(output, threshold, target_sizes=torch.tensor([size]), text_labels=[[prompt]])[0]
        return {name: found[name] for name in ("scores", "boxes", "text_labels")}

    def _candidates(self, found: Mapping[str, Any], size: tuple[int, int]) -> list[Candidate]:
        """What was read, in order, inside an image of a size (height, width), each object once."""
        order = found["scores"].argsort(descending=True, stable=True)[:MOST_BOXES].tolist()
        scores, boxes = (found[name].numpy().astype(np.float64)[order] for name in ("scores", "boxes"))
        boxes = boxes.clip(0, [size[1], size[0]] * 2)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return [
            Candidate(tuple(boxes[i].tolist()), float(scores[i]), self._label(found["text_labels"][order[i]]))
            for i in distinct(boxes, self.settings.overlap)
            if inside[i]
        ]

    def _label(self, text: str) -> str:
        special = map(re.escape, self.processor.tokenizer.all_special_tokens)
        return " ".join(re.sub("|".join(special), " ", text).strip(" .").split())


def distinct(boxes: np.ndarray, overlap: float) -> list[int]:
    """Indices of those boxes (n, 4), the surest first, that overlap no surer one by more than an IoU."""
    ious, kept = box_iou(boxes, boxes), list[int]()
    for index in range(len(boxes)):
        if not kept or ious[index, kept].max() <= overlap:
            kept.append(index)
    return kept


def meant(words: str) -> int:
    """How many objects words mean at most, by how they begin: "the two dogs" 2, "both" 2, "all" any number, else 1."""
    each = words.lower().split()
    first = next((word.strip(".,") for word in each if word not in _BEFORE_NUMBERS), "")
    if first in _ALL:
        return MOST_BOXES
    if first == "both":
        return 2
    if first in _NUMBERS:
        return _NUMBERS.index(first) + 1
    return max(1, int(first)) if re.fullmatch(r"[0-9]{1,2}", first) else 1


def left_out(words: str, shorter: str) -> list[str]:
    """The parts of words that a shorter wording does not have: "the man in red", "man": "the", "in red"."""
    kept = {word.strip(".,?!").lower() for word in shorter.split()}
    parts: list[list[str]] = [[]]
    for word in words.split():
        if word.strip(".,?!").lower() in kept:
            parts.append([])
        else:
            parts[-1].append(word)
    return [" ".join(part) for part in parts if part]


def hub_name(folder: Path) -> str:
    """The hub's id of a folder in the hub's cache, or in one of its owner's name; else the folder's own name."""
    parts = folder.absolute().parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    if cached is not None:
        return cached.removeprefix("models--").replace("--", "/", 1)
    named = "/".join(parts[-2:])
    return named if named in LICENCES else folder.absolute().name


def licence_of(folder: Path) -> str:
    """What the card in a folder says in its front matter, or else `LICENCES`; empty where neither does."""
    card = folder / CARD_FILE
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    matter = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, re.DOTALL)
    said = (
        dict(re.findall(r"^(license|license_name):[ \t]*[\"']?([^\s\"'#]+)", matter[1], re.MULTILINE)) if matter else {}
    )
    return said.get("license_name") or said.get("license") or LICENCES.get(hub_name(folder), "")


def _padded(image: np.ndarray) -> np.ndarray:
    """An image of at most `MOST_ASPECT`, black at the bottom or on the right."""
    height, width = image.shape[:2]
    least = -(-max(height, width) // MOST_ASPECT)
    if min(height, width) >= least:
        return image
    return np.pad(image, ((0, max(0, least - height)), (0, max(0, least - width)), (0, 0)))


def _kind(folder: Path) -> str:
    """Which of `FAMILIES` a folder holds."""
    if folder.is_file():
        raise ModelError(f"{folder}: a file, and only Hugging Face's layout is read; {INSTEAD}", "MD06")
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder}: no {CONFIG_FILE} there; {INSTEAD}", "MD01")
    kind = str(read_json(folder / CONFIG_FILE).get("model_type", ""))
    if kind in REFUSED:
        raise ModelError(f"{folder}: this is {REFUSED[kind]}; {INSTEAD}", "MD06")
    if kind not in FAMILIES:
        raise ModelError(f"{folder}: a model of the type {kind!r}, and no detector that takes words; {INSTEAD}", "MD06")
    return kind


def _processor(folder: Path, family: DetectorFamily) -> Any:
    """transformers' processor of a folder: its image processor for Pillow and its tokenizer."""
    import transformers

    file = next((folder / name for name in IMAGE_FILES if (folder / name).is_file()), None)
    if file is None:
        raise ModelError(f"{folder}: no {IMAGE_FILES[0]} there; fetch it, too", "MD01")
    tokenizer = _tokenizer(folder, family)
    with describing(file):
        images = getattr(transformers, family.image_processor).from_pretrained(folder, local_files_only=True)
        return getattr(transformers, family.processor)(image_processor=images, tokenizer=tokenizer)


def _tokenizer(folder: Path, family: DetectorFamily) -> Any:
    from transformers import AutoTokenizer

    whole = [names for names in family.tokenizer_files if all((folder / name).is_file() for name in names)]
    if not whole:
        wanted = ", or ".join(" and ".join(names) for names in family.tokenizer_files)
        raise ModelError(f"{folder}: no tokenizer; wanted {wanted}", "MD01")
    for name in whole[0]:
        refuse_pointer(folder / name)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises plain exceptions, and its panics not even these
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{folder}: the tokenizer's files are damaged ({reason}); fetch them again", "MD02") from error


def _check_words(tokenizer: Any, config: Any, folder: Path) -> None:
    """Refuse a tokenizer with more words than the network has."""
    known = int(config.text_config.vocab_size)
    if len(tokenizer) > known:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, and {CONFIG_FILE} {known}; fetch both again", "MD02"
        )


class _Offered:
    """A weight of a checkpoint as transformers takes it: read and checked when it is taken."""

    def __init__(self, folder: Path, name: str, lazy: Lazy) -> None:
        self.folder, self.name, self.lazy = folder, name, lazy

    def get_shape(self) -> list[int]:
        """As the slices of safetensors have it."""
        return list(self.lazy.shape)

    def __getitem__(self, index: Any) -> Tensor:
        return checked(self.folder, self.name, self.lazy.make(), not self.name.endswith(_HARMLESS))[index]


def _model(folder: Path, family: DetectorFamily) -> Any:
    """The network of a folder, filled, in float32, on the CPU, in evaluation mode: no weight missing, none unknown."""
    import transformers

    kind = getattr(transformers, family.model)
    weights = read_lazily(folder, standard=True)
    where = folder / CONFIG_FILE
    with describing(where):
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        refuse_oversized(config.to_dict(), weights, lambda: kind(config), where)
    offered = {name: _Offered(folder, name, lazy) for name, lazy in weights.items() if not name.endswith(_HARMLESS)}
    try:
        model, seen = kind.from_pretrained(
            None, config=config, state_dict=offered, dtype=torch.float32, output_loading_info=True
        )
    except ModelError:
        raise
    except Exception as error:  # transformers fails in many ways
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{folder}: the weights do not load ({reason}); fetch them again", "MD02") from error
    problems = (("missing", sorted(seen["missing_keys"])), ("unknown", sorted(seen["unexpected_keys"])))
    said = [f"weights {problem} {len(names)}: {some(names)}" for problem, names in problems if names]
    if said:
        raise ModelError(f"{folder}: does not fit its {CONFIG_FILE}: {'; '.join(said)}; fetch both again", "MD02")
    return model.eval().requires_grad_(False)
