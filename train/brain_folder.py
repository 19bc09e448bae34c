"""`python -m train.brain_folder nano OUT`: the brain of a TrackGPT as a vision-language model in transformers' layout.

Describers and policies learn from any such folder (`train.answer_training`); nano's brain is the one that has seen
SynthTrack, and needs no download. What is written are weights, tokenizer, image processor and chat template; phi, <TK>
and <PO> have no use in it. It sees frames padded to a square as in TrackGPT, and is asked nothing but the words, and as
a policy where the objects are. Its vocabulary gets the pieces of which answers consist (`PIECES`), which a tokenizer
learned from SynthTrack's sentences would write letter by letter.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from trackgpt import ending
from trackgpt.errors import ModelError
from trackgpt.files import refuse_existing, refuse_strangers, writing
from trackgpt.hub import find
from trackgpt.reasoners.coordinates import SQUARE
from trackgpt.reasoners.describer import TEMPLATE_FILE as DESCRIBED_BY
from trackgpt.reasoners.policy import KNOWN, WORDS
from trackgpt.reasoners.vlm import TEMPLATE_FILE as ASKED_BY
from trackgpt.systems.trackgpt import TrackGPT

CHAT = (
    "{% for message in messages %}{% if message.role == 'user' %}USER: "
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% else %} ASSISTANT: {% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""Vicuna's words, which `trackgpt.reasoners.templates.CONVERSATIONS` has, around any number of images."""

PIECES = (
    *("<think></think>\n<answer>", "[]</answer>", '[{"frame": ', ']}, {"frame": ', "]}]</answer>"),
    *(', "object_id": ', ', "bbox_2d": '),
    *(" On frame 0, object ", "], object ", ", object ", " is at ", "].", " cannot be seen"),
)
"""What an answer of a policy (`trackgpt.reasoners.policy.render`) and its question have between numbers."""
BEGINS = ("[", ", ")
"""In front of the first number of a box, and of further ones. Each is one word with every number from 0 to `SQUARE`."""
WAVES = 24
"""Of different lengths, from the whole range down to two steps, of which the embedding of a number is made."""

app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A TrackGPT whose brain is a LLaVA, e.g. nano")],
    out: Annotated[Path, typer.Argument(help="A new folder")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace such a folder")] = False,
) -> None:
    """Write the brain of a TrackGPT as a folder that describers and policies learn from."""
    write_brain(model, out, overwrite)
    typer.echo(f"out={out}")


def write_brain(name: str, out: Path, overwrite: bool = False) -> None:
    """See the head of this file.

    Args:
        name: of the TrackGPT.
        out: the folder.
        overwrite: such a folder may be replaced; other files in it stay.

    Raises:
        ModelError: MD06, the brain is no LLaVA, or speaks otherwise than Vicuna.
        OutputError: OUT01, there is something already, or a model of another kind; OUT02, it cannot be written.
    """
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    refuse_existing(out, overwrite)
    refuse_strangers(out, ("config.json", "model.safetensors"), (ASKED_BY,), "it is no such folder")
    brain = TrackGPT.from_pretrained(find(name)).brain
    config, llava = brain.config, brain.llava
    if llava.config.model_type != "llava" or config.conversation != "vicuna" or config.fit != "pad":
        raise ModelError(f"{name}: its brain is no padded LLaVA with Vicuna's words; wanted one such as nano", "MD06")
    side, tokens = config.image_side, brain.family.image_tokens
    words = brain.template.tokenizer
    _add_pieces(llava, words)
    images = LlavaImageProcessorPil(
        do_pad=True,
        do_center_crop=False,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=config.pixel_mean,
        image_std=config.pixel_std,
        background_color=tuple(round(255 * mean) for mean in config.pixel_mean),
    )
    processor = LlavaProcessor(
        images,
        words,
        patch_size=side // round(tokens**0.5),
        vision_feature_select_strategy=llava.config.vision_feature_select_strategy,
        num_additional_image_tokens=0,
        chat_template=CHAT,
    )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        llava.save_pretrained(out)
        processor.save_pretrained(out)
        (out / DESCRIBED_BY).write_text(f'prompt: "{WORDS}"\n')
        (out / ASKED_BY).write_text(
            f'prompt: "{WORDS}"\nquery: "{WORDS}{KNOWN}"\nmost_frames: 2\ncoordinates: square\n'
        )


def _add_pieces(llava: Any, words: Any) -> None:
    """Give `PIECES` to a tokenizer, and rows to a model's embedding: the means of those they were written with before.

    nano has one matrix for what it reads and writes. In a model with two, the new rows of the second are random.
    """
    from tokenizers import AddedToken

    pieces = [*PIECES, *(f"{begin}{number}" for begin in BEGINS for number in range(SQUARE + 1))]
    known, before = len(words), [words.encode(piece, add_special_tokens=False) for piece in pieces]
    words.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in pieces])
    table = llava.resize_token_embeddings(len(words), mean_resizing=False).weight
    waves = _waves(table.shape[1]) * table[:known].std() / 2**0.5  # a base and a number are as long as a word
    with torch.no_grad():
        for piece, ids in zip(PIECES, before, strict=False):
            table[words.convert_tokens_to_ids(piece)] = table[ids].mean(0)
        for begin in BEGINS:
            base = table[words.encode(begin, add_special_tokens=False)].mean(0)
            for number in range(SQUARE + 1):
                table[words.convert_tokens_to_ids(f"{begin}{number}")] = base + waves[number]


def _waves(width: int) -> Tensor:
    """A vector for each number from 0 to `SQUARE`, float (SQUARE + 1, width), of deviation 1: near ones are alike."""
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.logspace(math.log10(2 * SQUARE), math.log10(4), WAVES)
    angles = 2 * math.pi * torch.arange(SQUARE + 1)[:, None] / lengths
    sides = torch.randn(2 * WAVES, width, generator=drawn) / WAVES**0.5
    return torch.cat([angles.cos(), angles.sin()], 1) @ sides


if __name__ == "__main__":
    ending.run("train.brain_folder", lambda: app(prog_name="python -m train.brain_folder", standalone_mode=False))
