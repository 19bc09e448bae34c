"""A vision-language model as a policy: it sees a window of frames, and answers with trajectories.

How its family writes boxes is what `trackgpt.reasoners.vlm.DIALECTS` says, or a template file beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.known_world import KNOWN_WORLD_FILE, KnownWorld, encoded
from trackgpt.reasoners.conv_tower import ConvTower
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
from trackgpt.reasoners.policy import PolicyAnswer, Query, Trajectories, asked_frames, messages, parse, sections
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.reasoners.vlm import Dialect, find_dialect
from trackgpt.reasoners.vlm_model import AnswerLimits, Spoken, VlmModel

LIMITS = AnswerLimits(2000, 300.0)
"""Of an answer: the paper's max_response_length, and five minutes, which only a model that runs away takes."""


class VlmPolicy:
    """`Policy` of a vision-language model. It holds weights, not state.

    A box's score is the mean probability of the tokens of its numbers: how sure the model is of what it wrote.

    Args:
        vlm: the model.
        dialect: how its family writes boxes.

    Attributes:
        name: for people and for run.json.
        licence: for people.
        most_frames: that a question may show; 0 for any number.
        convention: in which numbers it writes boxes.
        template: its own question, see `trackgpt.reasoners.policy.messages`; empty where it has none.
        known_world: what frames look like that it was trained on, where its folder says so.
    """

    known_world: KnownWorld | None = None

    def __init__(self, vlm: VlmModel, dialect: Dialect) -> None:
        self._vlm, self.convention, self.template = vlm, CONVENTIONS[dialect.coordinates], dialect.query
        self.model, self.processor, self.name = vlm.model, vlm.processor, vlm.name
        self.licence, self.most_frames = dialect.licence, dialect.most_frames

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        limits: AnswerLimits = LIMITS,
    ) -> VlmPolicy:
        """The policy of a folder as a hub holds it: config.json, weights, and the processor's files.

        Args:
            folder: of the model.
            device: where it computes.
            dtype: of the weights in memory, whatever they are stored as.
            limits: of every answer.

        Raises:
            UsageError: a template file beside the model does not follow the schema.
            ModelError: MD06, the model's family does not write boxes as four numbers in a chat; MD02, the file about
                its world is damaged; see also `trackgpt.reasoners.vlm.find_dialect` and `VlmModel.from_pretrained`.
        """
        folder = Path(folder)
        dialect = find_dialect(folder)
        if not dialect.chat or dialect.answer not in ("json", "box_tags"):
            raise ModelError(
                f"{folder}: answers one prompt about one image and cannot be asked about several frames; wanted a "
                "chat model that writes boxes as JSON, such as Qwen2.5-VL or Qwen3-VL",
                "MD06",
            )
        policy = cls(VlmModel.from_pretrained(folder, device, dtype, limits), dialect)
        if (folder / KNOWN_WORLD_FILE).is_file():
            tower = policy.tower
            channels = None if tower is None else tower.encoder.fine_channels
            policy.known_world = KnownWorld.read(folder / KNOWN_WORLD_FILE, channels)
        return policy

    @property
    def tower(self) -> ConvTower | None:
        """Its vision tower, where that is nano's."""
        tower = getattr(self.model.model, "vision_tower", None)
        return tower if isinstance(tower, ConvTower) else None

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike its world a frame is (see `KnownWorld.unlikeness`); None where nothing is known of that world.

        Args:
            frame: uint8 RGB (height, width, 3).
        """
        if self.known_world is None or self.tower is None:
            return None
        features = encoded(self.tower.encoder, self.tower.config.image_size, frame)
        return self.known_world.unlikeness(features, (frame.shape[0], frame.shape[1]))

    def view(self, frame: np.ndarray) -> Sizes:
        """The size of a frame, uint8 RGB (height, width, 3), and that of the copy that the network is given.

        Raises:
            InputError: the model cannot take frames of this shape.
        """
        height, width = frame.shape[:2]
        return Sizes((width, height), self._vlm.seen(frame))

    def answer(self, frames: Sequence[np.ndarray], query: Query, paper: bool = False) -> PolicyAnswer:
        """See `Policy.answer`; markup in the words is taken out.

        Raises:
            UsageError: NL01, there are no words; the paper's protocol, of a policy that has a question of its own.
            InputError: the model cannot take frames of this shape.
        """
        if paper and self.template:
            raise UsageError("paper: this policy was taught a question of its own, and not the paper's; leave it out")
        view = self.view(frames[-1])
        query = Query(clean_instruction(query.words), query.known)
        text = self._vlm.in_chat(messages(len(frames), query, view, self.convention, paper, self.template))
        spoken = self._vlm.ask(frames, text, until="</answer>")
        found = parse(spoken.text, asked_frames(len(frames), query, paper), view, self.convention)
        return PolicyAnswer(found, _scores(found, spoken), sections(spoken.text).thought, spoken.text)


def _scores(found: Trajectories, spoken: Spoken) -> np.ndarray:
    """float32 (objects, frames), NaN where there is no box or nothing is known of its tokens."""
    scores = np.full(found.spans.shape[:2], np.nan, np.float32)
    for row, column in zip(*np.nonzero(found.spans[..., 0] >= 0), strict=True):
        first, last = (int(place) for place in found.spans[row, column])
        certainty = spoken.certainty((first, last))
        if certainty is not None:
            scores[row, column] = certainty
    return scores
