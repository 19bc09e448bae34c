"""Rephrases instructions: ``python -m data_tools rephrase seeds.jsonl -o annotations.jsonl --model FOLDER``.

A chat model is asked for five wordings of each seed. An answer is checked, asked for again with another seed when it
does not do, and kept in a cache next to the output, so that a run that was cut short goes on without asking twice.

TrackGPT, section 3.6: five of the six instructions about a video were written by GPT-3.5; the wording of its prompt is
not published, so this one is our own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from data_tools.chat_models import ChatModel, Endpoint, LocalChatModel, key_of
from data_tools.instructions import PARAPHRASES, Instruction, read_instructions, write_instructions
from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.files import refuse_existing_file, writing
from trackgpt.settings import parse_json

SYSTEM = (
    "You reword instructions that people give to a video tracker. Keep the meaning exactly: whoever follows your "
    "wording must track the same thing. Do not name the thing if the instruction does not, and give no reasons."
)
QUESTION = (
    "Write {count} different wordings of the instruction below, some as questions, some as requests, in everyday "
    "words. Answer with a JSON list of {count} strings and nothing else.\n\nInstruction: {seed}"
)
LONGEST = 300  # characters of a paraphrase
ATTEMPTS = 4
_MARKUP = re.compile(r"[<>{}\[\]|`*#\\]|https?://|^\s*(?:\d+[.)]|[-•])\s|\b(?:USER|ASSISTANT):")
_NUMBER = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+")


def paraphrases_of(answer: str) -> list[str]:
    """The wordings in a model's answer: a JSON list of texts anywhere in it, else its lines without their numbers."""
    begin, end = answer.find("["), answer.rfind("]")
    if 0 <= begin < end:
        try:
            listed = parse_json(answer[begin : end + 1], "the answer")
        except InputError:
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return [one.strip() for one in listed]
    lines = [_NUMBER.sub("", line).strip() for line in answer.splitlines()]
    return [line.removeprefix('"').removesuffix('"').strip() for line in lines if line]


def fault_of(paraphrases: Sequence[str], seed: str) -> str:
    """What keeps wordings from being used, "" for nothing."""
    if len(paraphrases) != PARAPHRASES:
        return f"{len(paraphrases)} wordings, not {PARAPHRASES}"
    for one in paraphrases:
        if not re.search(r"\w", one):
            return "an empty wording"
        if len(one) > LONGEST or "\n" in one:
            return f"a wording of {len(one)} characters or several lines: {one[:40]!r}"
        if _MARKUP.search(one):
            return f"a wording with markup: {one[:40]!r}"
    plain = [re.sub(r"\W+", " ", one).strip().lower() for one in (seed, *paraphrases)]
    twice = [one for one in plain if plain.count(one) > 1]
    return f"the same wording twice, or the seed: {twice[0][:40]!r}" if twice else ""


class Cache:
    """Answers by model, question and seed: one JSON object per line, added as they come."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut off is left out.

        Raises:
            InputError: the file holds something else.
        """
        self.path = path
        self.answers: dict[str, str] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                if line:
                    record = parse_json(line, "the line")
                    self.answers[record["key"]] = record["answer"]
            except (InputError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise InputError(f"{path}:{number}: no cached answer ({error}); move the file away") from error

    def ask(self, model: ChatModel, question: str, seed: int) -> str:
        """The cached answer, or the model's, which is kept.

        Raises:
            ModelError: the model gave none.
            OutputError: OUT02, it cannot be kept.
        """
        key = hashlib.sha256("\0".join((model.name, SYSTEM, question, str(seed))).encode()).hexdigest()
        if key not in self.answers:
            answer = model.ask(SYSTEM, question, seed)
            record = {"key": key, "model": model.name, "seed": seed, "question": question, "answer": answer}
            self._add(json.dumps(record, ensure_ascii=False))
            self.answers[key] = answer
        return self.answers[key]

    def _add(self, line: str) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = not self.path.is_file() or self.path.read_bytes()[-1:] in (b"", b"\n")
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n" if whole else f"\n{line}\n")


@dataclass(frozen=True)
class Failure:
    """An instruction for which no answer would do.

    Attributes:
        where: its file and line.
        seed: the instruction.
        faults: what was wrong with each answer.
    """

    where: str
    seed: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {self.seed[:60]!r}: {len(self.faults)} answers, none of use: {'; '.join(self.faults)}"


def rephrase(
    one: Instruction, model: ChatModel, cache: Cache, seed: int = 0, attempts: int = ATTEMPTS
) -> Instruction | Failure:
    """An instruction with paraphrases; one that has them is given back as it is.

    Args:
        one: the instruction.
        model: who is asked.
        cache: what was answered before.
        seed: of the first attempt; attempt k has the seed `seed` * 1000 + k.
        attempts: how often the model is asked at most.

    Raises:
        ModelError: the model cannot be asked.
        OutputError: OUT02, an answer cannot be kept.
    """
    if one.paraphrases:
        return one
    question = QUESTION.format(count=PARAPHRASES, seed=one.instruction)
    faults = []
    for attempt in range(attempts):
        found = paraphrases_of(cache.ask(model, question, 1000 * seed + attempt))
        fault = fault_of(found, one.instruction)
        if not fault:
            return replace(one, paraphrases=tuple(found), rephrased_by=model.name)
        faults.append(fault)
    return Failure(one.where, one.instruction, tuple(faults))


def command(
    annotations: Annotated[Path, typer.Argument(help="Seeds, one JSON object per line (data_tools/INSTRUCTIONS.md)")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write, annotations.jsonl")],
    model: Annotated[str, typer.Option(help="A local chat model: a folder, or a name in the Hugging Face cache")] = "",
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible server, http://localhost:8000/v1")] = "",
    endpoint_model: Annotated[str, typer.Option(help="The model that the server is asked for")] = "",
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the server's key")] = "TRACKGPT_API_KEY",
    seed: Annotated[int, typer.Option(help="Another one gives other answers")] = 0,
    attempts: Annotated[int, typer.Option(help="How often a model is asked about one instruction")] = ATTEMPTS,
    cache: Annotated[Path | None, typer.Option(help="Cache of answers; by default next to the output")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file to write; the cache is used either way")
    ] = False,
) -> None:
    """Write five paraphrases of each seed instruction by a chat model; exit code 4 when some have none."""
    if bool(model) == bool(endpoint) or bool(endpoint) != bool(endpoint_model):
        raise UsageError("give either --model, or --endpoint and --endpoint-model")
    if attempts < 1 or seed < 0:
        raise UsageError(f"--attempts is {attempts}, --seed {seed}; wanted 1 or more, and 0 or more")
    answers = cache or out.with_name(f"{out.stem}.cache.jsonl")
    refuse_existing_file(out, overwrite, [annotations, answers])
    instructions = read_instructions(annotations)
    kept = Cache(answers)
    chat: ChatModel = LocalChatModel.load(model) if model else Endpoint(endpoint, endpoint_model, key_of(api_key_env))
    done = [rephrase(one, chat, kept, seed, attempts) for one in _progress(instructions)]
    failures = [one for one in done if isinstance(one, Failure)]
    pairs = zip(instructions, done, strict=True)
    write_instructions(out, (old if isinstance(new, Failure) else new for old, new in pairs))
    for failure in failures:
        print(f"failed: {failure}")
    if failures:
        print("those lines were written without paraphrases; try another --seed, more --attempts or another model")
    print(f"instructions={len(done)} failed={len(failures)} model={chat.name} out={out}")
    if failures:
        raise typer.Exit(ModelError.exit_code)


def _progress(instructions: Sequence[Instruction]) -> Iterator[Instruction]:
    """Goes through instructions with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown: Callable[..., Iterator[Instruction]] = track
    return shown(instructions, "instructions", console=console, transient=True, disable=not console.is_terminal)
