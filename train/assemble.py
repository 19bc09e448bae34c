"""Put a model together from halves that were trained apart, and say what came from where."""

from __future__ import annotations

from pathlib import Path

from trackgpt.systems.trackgpt import TrackGPT
from train.codes import Codes
from train.nano import new_nano


def assemble(brain: str, segmenter: str, encoder_from_tower: bool, seed: int) -> TrackGPT:
    """A TrackGPT whose brain and perception come from the named model folders, or from a new nano.

    Args:
        brain: folder for the brain and the tokenizer; empty for random weights.
        segmenter: folder for the perception; empty for random weights.
        encoder_from_tower: copy the brain's convolutional tower into the perception's encoder.
        seed: of the random weights.
    """
    model = TrackGPT.from_pretrained(Path(brain)) if brain else new_nano(seed)
    if not segmenter:
        Codes().align(model.segmenter.shared_image_embedding.positional_embedding)
    else:
        model.segmenter.load_state_dict(TrackGPT.from_pretrained(Path(segmenter)).segmenter.state_dict())
    if encoder_from_tower:
        tower = model.brain.llava.model.vision_tower.encoder.stages
        model.segmenter.image_encoder.stages.load_state_dict(tower.state_dict())
    return model
