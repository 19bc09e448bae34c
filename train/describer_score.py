"""`python -m train.describer_score MODEL`: how well a describer keeps SynthTrack's words true, on held-out pairs.

Beside the model stand two that read nothing: one that never changes the words, and one that gives the right answers.

    form      share of answers of exactly the form that is asked for
    decision  share of pairs whose words are changed where they had to be, and left where not
    yes       share of pairs whose words are changed
    true      share of pairs whose words, after the answer, mean the target and nothing else on the second frame
    gain      with a tracker: mean IoU over the window with those words minus that with the old ones, times 100

Intervals are of 95 %, by bootstrap over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import typer

from eval.metrics.intervals import bootstrap_mean
from eval.run_folder import progress
from trackgpt import ending
from trackgpt.errors import ModelError
from trackgpt.hub import find, is_brain, load_box_tracker
from trackgpt.reasoners.brain_weights import CONFIG_FILE
from trackgpt.reasoners.describer import VlmDescriber
from train.description_rewards import DescriptionText, changes
from train.description_rows import AskedRows, DescriptionRow, PairRows
from train.window_tracking import WindowTracker

FIGURES = ("form", "decision", "yes", "true")

app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A folder that describer training wrote, or any VLM's")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of frames")] = 200,
    split: Annotated[str, typer.Option(help="Of SynthTrack: test or train")] = "test",
    gap: Annotated[int, typer.Option(min=1, help="Most frames from the first to the second")] = 40,
    window: Annotated[int, typer.Option(min=1, help="Frames that the tracker follows")] = 8,
    tracker: Annotated[str, typer.Option(help="A box tracker; none measures no gain")] = "",
) -> None:
    """Ask a describer about drawn pairs and print what its answers are worth."""
    describer = _describer(model)
    follower = WindowTracker(load_box_tracker(tracker, torch.device("cpu"))) if tracker else None
    rows = AskedRows(PairRows(pairs, split, gap, window, draw=True), describer.template)
    systems: dict[str, Callable[[DescriptionRow], str]] = {
        describer.name: lambda row: answered(describer, row),
        "words never changed": lambda row: f"<think></think><d>no</d><answer>{row.words}</answer>",
        "right answers": lambda row: row.answer,
    }
    asked = list(progress((rows[k] for k in range(pairs)), "pairs", pairs))
    found = {name: scored([reply(row) for row in asked], asked, follower) for name, reply in systems.items()}
    typer.echo(f"{split}, {pairs} pairs")
    for name, figures in found.items():
        typer.echo(f"{name:24} " + "  ".join(f"{key} {_cell(values)}" for key, values in figures.items()))
    means = {key: sum(values) / len(values) for key, values in found[describer.name].items()}
    typer.echo(" ".join(f"{key}={value:.2f}" for key, value in means.items()))


def _describer(model: str) -> VlmDescriber:
    """The model of a name.

    Raises:
        ModelError: there is no such model; a TrackGPT is none that describes, but its brain can be written as one.
    """
    folder = find(model)
    if (folder / CONFIG_FILE).is_file() and not is_brain(folder):
        raise ModelError(
            f"{model}: is a whole TrackGPT; wanted a vision-language model; its brain becomes one by "
            f"`python -m train.brain_folder {model} runs/brain`",
            "MD06",
        )
    return VlmDescriber.from_pretrained(folder)


def answered(describer: VlmDescriber, row: DescriptionRow) -> str:
    """What a describer writes about a row."""
    text = describer.vlm.in_chat(row.prompt())
    return describer.vlm.ask(row.frames(), text, until="</answer>").text


def scored(
    answers: Sequence[str], rows: Sequence[DescriptionRow], tracker: WindowTracker | None
) -> dict[str, list[float]]:
    """Figures of every answer, 0 to 100 each; see the head of this file."""
    read = [DescriptionText.read(text) for text in answers]
    changed = [changes(answer, row.words) for answer, row in zip(read, rows, strict=True)]
    after = [
        answer.parsed.words if change else row.words for answer, row, change in zip(read, rows, changed, strict=True)
    ]
    figures = {
        "form": [100.0 * answer.parsed.strict for answer in read],
        "decision": [100.0 * (change == row.outdated) for change, row in zip(changed, rows, strict=True)],
        "yes": [100.0 * change for change in changed],
        "true": [100.0 * (words in row.fitting) for words, row in zip(after, rows, strict=True)],
    }
    if tracker is not None:
        figures["gain"] = [100.0 * (new - old) for old, new in tracker.compared(rows, after)]
    return figures


def _cell(values: Sequence[float]) -> str:
    interval = bootstrap_mean(values, 0)
    return f"{interval.mean:5.1f} [{interval.low:.1f}, {interval.high:.1f}]"


if __name__ == "__main__":
    ending.run("train.describer_score", lambda: app(prog_name="python -m train.describer_score", standalone_mode=False))
