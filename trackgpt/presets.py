"""Public models that are known here by name: at which revision, how large, under which licence, and what they know.

A preset is a grounder, which finds what words mean, and a memory segmenter, which follows it: the two halves of IMAT.
Revisions, sizes and checksums are the hub's own, as several public projects that pin them state (December 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trackgpt.fetching import fetch, kept


@dataclass(frozen=True)
class HubModel:
    """A model at one revision.

    Attributes:
        repo: its id at the hub.
        revision: the commit, 40 hexadecimal digits.
        licence: of the weights, as its card says.
        dtype: in which the weights are stored: "float32" or "bfloat16".
        weights: bytes and sha256 of the files that hold them, by name.
    """

    repo: str
    revision: str
    licence: str
    dtype: str
    weights: Mapping[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes of its weights on disk; all else that is fetched is under 20 MB."""
        return sum(size for size, _ in self.weights.values())

    @property
    def sums(self) -> dict[str, str]:
        """sha256 of its weights by name of the file."""
        return {name: digest for name, (_, digest) in self.weights.items()}


@dataclass(frozen=True)
class Preset:
    """A grounder and a segmenter that go together.

    Attributes:
        name: what is typed for both.
        knows: what can be said to it, for people.
    """

    name: str
    grounder: HubModel
    segmenter: HubModel
    knows: str

    @property
    def parts(self) -> tuple[HubModel, HubModel]:
        """What it is made of."""
        return self.grounder, self.segmenter

    @property
    def size(self) -> int:
        """Bytes of all weights on disk."""
        return sum(part.size for part in self.parts)

    @property
    def licence(self) -> str:
        """Of its parts, each once."""
        return ", ".join(dict.fromkeys(part.licence for part in self.parts))


PRESETS = (
    Preset(
        "reason",
        HubModel(
            "Qwen/Qwen3-VL-4B-Instruct",
            "ebb281ec70b05090aa6165b016eac8ec08e71b17",
            "Apache-2.0",
            "bfloat16",
            {
                "model-00001-of-00002.safetensors": (
                    4_967_229_296,
                    "30a01a0556622645a3cce87b655bbbbbc1f170c196099f1b666c93202c3339a9",
                ),
                "model-00002-of-00002.safetensors": (
                    3_908_490_048,
                    "046296a2a387efb43b0c997d5833c789604d168834f6e0d3064bf7bb13d002a6",
                ),
            },
        ),
        HubModel(
            "facebook/sam2.1-hiera-small",
            "ee5bba1d82bb8749febdf90f45e84b687142ba03",
            "Apache-2.0",
            "float32",
            {"model.safetensors": (184_305_280, "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60")},
        ),
        "real footage; words that need thought: 'who will win the race?'; wants a GPU",
    ),
    Preset(
        "small",
        HubModel(
            "IDEA-Research/grounding-dino-tiny",
            "a2bb814dd30d776dcf7e30523b00659f4f141c71",
            "Apache-2.0",
            "float32",
            {"model.safetensors": (689_359_096, "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3")},
        ),
        HubModel(
            "facebook/sam2.1-hiera-tiny",
            "de431c4043854a71d8101e17995dfe596bf101a5",
            "Apache-2.0",
            "float32",
            {"model.safetensors": (155_908_064, "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7")},
        ),
        "real footage; things by their names: 'the dog', 'the red car'",
    ),
)
"""The best first."""


def preset_of(name: object) -> Preset | None:
    """The preset of a name."""
    return next((preset for preset in PRESETS if preset.name == str(name)), None)


def published(repo: object) -> HubModel | None:
    """What is known of a model by its id at the hub."""
    return next((part for preset in PRESETS for part in preset.parts if part.repo == str(repo)), None)


def here(repo: str) -> Path | None:
    """The folder of a hub's model that is on this machine, at its known revision if it has one. Nobody is asked."""
    known = published(repo)
    return kept(repo, known.revision if known else "")


def pull(repo: str, revision: str = "") -> Path:
    """Fetch a hub's model, at its known revision if it has one; raises what `trackgpt.fetching.fetch` does.

    Args:
        repo: its id.
        revision: another commit, branch or tag.
    """
    known = published(repo)
    if known is None or revision not in ("", known.revision):
        return fetch(repo, revision)
    return fetch(repo, known.revision, known.sums)


def best_here() -> Preset | None:
    """The best preset of which all parts are on this machine, or None. Nobody is asked."""
    return next((preset for preset in PRESETS if all(here(part.repo) for part in preset.parts)), None)
