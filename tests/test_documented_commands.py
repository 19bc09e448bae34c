"""Every command that a document shows is one that exists: its verb, its options, and the configuration it names."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from data_tools.checks import CHECKS
from eval.commands.kits import KITS
from eval.speed.bench import PARTS
from trackgpt.errors import TrackGPTError
from trackgpt.perception import nano_memory
from trackgpt.settings import read
from trackgpt.systems.trackgpt import ABLATIONS

ROOT = Path(__file__).parents[1]
errors = import_module(typer.BadParameter.__module__)  # click's, or those of the copy of it that typer carries
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "eval/RESULTS.md", "eval/TRIED.md", "eval/kits/*.md", "configs/**/*.yaml")
PROGRAM = re.compile(
    r"(?:trackgpt |python -m (?:trackgpt|eval|train|data_tools)\b|make [a-z]|torchrun .*-m (?:train|eval)\b"
    r"|train/launchers/\w)"
)
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class Shown:
    """A command in a document.

    Attributes:
        place: document and line.
        text: the command in one line.
        whole: it can be typed as it stands; a mention in running text may leave required values out.
    """

    place: str
    text: str
    whole: bool


def commands_of(name: str, text: str) -> Iterator[Shown]:
    """The commands of a document, in order of kind: those of code blocks, then those in running text."""
    if name.endswith(".yaml"):
        for number, line in enumerate(text.splitlines(), 1):
            found = re.match(r"# (?:\w+: +)?(?:.*: )?(?=python|torchrun|trackgpt |train/)(.*?)\.?$", line)
            if found and PROGRAM.match(found[1]):
                yield Shown(f"{name}:{number}", found[1], "command:" in line or "data:" in line)
        return
    blocks = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for block in blocks.finditer(text):
        first = text.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines()):
            if PROGRAM.match(line):
                yield Shown(f"{name}:{first + number}", line, True)
    prose = blocks.sub(lambda block: "\n" * block[0].count("\n"), text)
    for span in re.finditer(r"`([^`]+)`", prose):
        line = " ".join(span[1].split())
        if PROGRAM.match(line):
            yield Shown(f"{name}:{prose.count(chr(10), 0, span.start()) + 1}", line, False)


def command_of(module: str) -> Any:
    """The command of `python -m MODULE`, with its verbs if it has some."""
    if module == "trackgpt":
        return typer.main.get_command(import_module("trackgpt.app.cli").app)
    program = import_module(module if "." in module else f"{module}.__main__")  # train.ship is a file of its own
    app = getattr(program, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command()(program.main)
    return typer.main.get_command(app)


def problem_of(shown: Shown) -> str:
    """What is wrong with a command; empty if its parser takes it."""
    try:
        words = shlex.split(shown.text, comments=True)
        if words[0] == "make":
            targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return "" if words[1] in targets else f"no target {words[1]}"
        if words[0].startswith("train/launchers/"):
            return launcher_problem(words)
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            given = get_args_parser().parse_args(words[1:])
            return parse(given.training_script, given.training_script_args, shown.whole)
        module, arguments = ("trackgpt", words[1:]) if words[0] == "trackgpt" else (words[2], words[3:])
        return parse(module, arguments, shown.whole)
    except errors.ClickException as error:
        return error.format_message()
    except (TrackGPTError, SystemExit, ValueError) as error:
        return str(error)


def launcher_problem(words: list[str]) -> str:
    """Of `train/launchers/...`: the script and the configurations that it takes."""
    script, first, *rest = [*words, ""]
    if not (ROOT / script).is_file():
        return "no such launcher"
    if script.endswith("recipe.sh"):
        return "" if sorted(ROOT.glob(f"configs/*/recipe/{first}/1_image.yaml")) else f"no configurations of {first}"
    return parse("train", [first, *filter(None, rest)], True)


def parse(module: str, arguments: list[str], whole: bool) -> str:
    """Parse arguments as the program would, without running it.

    Raises:
        ClickException: an unknown verb or option, or a value that is none.
        TrackGPTError: a configuration is missing, or has no such key.
    """
    command = command_of(module)
    while hasattr(command, "commands") and (arguments or not command.invoke_without_command):
        verb, *arguments = arguments or [""]
        if PLACEHOLDER.fullmatch(verb) or not verb:
            verb = next(iter(KITS))  # any kit's: their common options are the same
        found = command.commands.get(verb)
        if found is None:
            return f"{module} has no {verb}"
        command = found
    try:
        context = command.make_context(command.name or module, list(arguments))
    except errors.MissingParameter:
        if whole:
            raise
        return ""
    except errors.BadParameter as error:
        # A placeholder stands for a number or a choice; unknown options are found before values are looked at.
        if not any(PLACEHOLDER.fullmatch(word) and word in error.message for word in arguments):
            raise
        return ""
    return values_problem(module, context)


def values_problem(module: str, context: Any) -> str:
    """What click leaves to the programs: configurations with their keys, parts of `speed`, variants."""
    if module == "train" and "config" in context.params:
        from train.config import TrainConfig

        overrides = context.params["overrides"] or []
        known = [re.sub(r"^(plan\..*)=[A-Z]\w*$", r"\1=1", each) for each in overrides]  # S in plan.seed=S is a number
        read(TrainConfig, ROOT / context.params["config"], known)
    for option, choices in (("only", PARTS), ("variant", ABLATIONS | nano_memory.ABLATIONS)):
        given = context.params.get(option) if module == "eval" and context.info_name != "gpu-rows" else None
        for value in [given] if isinstance(given, str) else given or []:
            if value not in choices and not PLACEHOLDER.fullmatch(value) and context.info_name != "parity":
                return f"--{option} {value}: not one of {', '.join(choices)}"
    return ""


def documents() -> Iterator[tuple[str, str]]:
    """Names and texts."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)), path.read_text()


def test_every_command_in_a_document_is_taken_by_its_parser():
    found = [shown for name, text in documents() for shown in commands_of(name, text)]
    assert len(found) > 60
    problems = [(shown, problem_of(shown)) for shown in found]
    assert [f"{shown.place}: {shown.text}: {problem}" for shown, problem in problems if problem] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("python -m eval synthtrack --model nano --variants first-frame", "No such option"),
        ("python -m eval davis-text --model nano --root DAVIS --expressions CSV", "No such option"),
        ("python -m eval davis18 --model nano", "eval has no davis18"),
        ("python -m eval synthtrack --videos many", "valid int"),
        ("python -m eval davis-text --model nano", "Missing option"),
        ("python -m eval synthtrack --variant half", "not one of full"),
        ("python -m eval speed --only colour", "not one of tracker"),
        ("python -m data_tools inspect stage1 DATA", "data_tools has no inspect"),
        ("python -m train configs/nowhere.yaml", "no such configuration file"),
        ("python -m train {config} plan.stepz=3", "stepz"),
        ("torchrun --standalone --nproc_per_node 4 -m train configs/nowhere.yaml", "no such configuration file"),
        ("torchrun --nprocs 4 -m train {config}", "2"),
        ("train/launchers/nodes.sh {config}", "no such launcher"),
        ("make everything", "no target everything"),
        ("trackgpt follow race.mp4", "trackgpt has no follow"),
    ],
)
def test_a_wrong_command_is_named_with_its_document_and_line(line, problem, capsys):
    config = min(ROOT.glob("configs/**/recipe/nano/1_image.yaml")).relative_to(ROOT)
    (shown,) = commands_of("NOTES.md", f"# Notes\n\n```\n{line.format(config=config)}\n```\n")
    assert shown.place == "NOTES.md:4"
    assert problem in problem_of(shown)


@pytest.mark.parametrize(
    ("text", "command", "place"),
    [
        ("See `python -m eval speed\n--only forced` and `trackgpt`.", "python -m eval speed --only forced", 1),
        ("A line\n\n```\ncd x\nmake demo     # a clip\n```\n", "make demo     # a clip", 5),
        ("```python\nimport trackgpt\n```\n\nSo `make test`.", "make test", 5),
    ],
)
def test_commands_are_found_in_code_blocks_and_in_running_text(text, command, place):
    (shown,) = commands_of("NOTES.md", text)
    assert (shown.text, shown.place) == (command, f"NOTES.md:{place}")
    assert problem_of(shown) == ""


def test_commands_are_found_in_the_header_of_a_configuration():
    header = "# A stage.\n# command:  python -m train CONFIG\n# At inference: python -m eval mevis --variant full.\n"
    found = [(shown.place, shown.text) for shown in commands_of("x.yaml", header)]
    assert found == [("x.yaml:2", "python -m train CONFIG"), ("x.yaml:3", "python -m eval mevis --variant full")]


def test_the_readme_of_the_kits_names_every_kit_and_every_check():
    text = (ROOT / "eval/kits/README.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall("`(.*?)`", row)) == sorted(KITS)
    assert "Eighteen kits" in (ROOT / "README.md").read_text()
    assert len(KITS) == 18
    paragraph = next(part for part in text.split("\n\n") if "check NAME ROOT" in part)
    named = set(re.split(r"[^\w+-]+", paragraph))
    assert {name for name in CHECKS if name in named} == {
        *("refer-davis17", "refer-youtube-vos", "mevis", "revos", "reason-vos", "instrack", "reason-seg"),
        *("refclef", "refcoco", "refcoco+", "refcocog", "grefcoco"),
    }
    assert named & KITS.keys() <= CHECKS.keys()
