"""A vision-language model as a policy: it sees a window of frames, and answers with trajectories.

How its family writes boxes is what `trackgpt.reasoners.vlm.DIALECTS` says, or a template file beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from trackgpt.errors import ModelError
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
    """

    def __init__(self, vlm: VlmModel, dialect: Dialect) -> None:
        self._vlm, self.convention = vlm, CONVENTIONS[dialect.coordinates]
        self.model, self.processor, self.name = vlm.model, vlm.processor, vlm.name
        self.licence = dialect.licence

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
            ModelError: MD06, the model's family does not write boxes as four numbers in a chat; see also
                `trackgpt.reasoners.vlm.find_dialect` and `VlmModel.from_pretrained`.
        """
        folder = Path(folder)
        dialect = find_dialect(folder)
        if not dialect.chat or dialect.answer not in ("json", "box_tags"):
            raise ModelError(
                f"{folder}: answers one prompt about one image and cannot be asked about several frames; wanted a "
                "chat model that writes boxes as JSON, such as Qwen2.5-VL or Qwen3-VL",
                "MD06",
            )
        return cls(VlmModel.from_pretrained(folder, device, dtype, limits), dialect)

    def answer(self, frames: Sequence[np.ndarray], query: Query, paper: bool = False) -> PolicyAnswer:
        """See `Policy.answer`; markup in the words is taken out.

        Raises:
            UsageError: NL01, there are no words.
            InputError: the model cannot take frames of this shape.
        """
        height, width = frames[-1].shape[:2]
        view = Sizes((width, height), self._vlm.seen(frames[-1]))
        query = Query(clean_instruction(query.words), query.known)
        text = self._vlm.in_chat(messages(len(frames), query, view, self.convention, paper))
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
