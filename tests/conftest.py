"""What every test may rely on: no network, one thread, and the lent data beside the repository where it is present."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from command_line import Done
    from scripted_model import ScriptedModel

# Read by the libraries when they are first imported, hence before any test module is.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="Agg", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches out fails at once, on every machine, instead of passing where a network happens to be."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address[0]}:{address[1]}; tests use no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., "Done"]:
    """Runs `trackgpt ARGS...` in an empty folder."""
    from command_line import command_of

    monkeypatch.chdir(tmp_path)
    return command_of(capsys, monkeypatch)


@pytest.fixture
def train_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., "Done"]:
    """Runs `python -m train ARGS...` in an empty folder."""
    from command_line import command_of

    from train.__main__ import main

    monkeypatch.chdir(tmp_path)
    return command_of(capsys, monkeypatch, main)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> "ScriptedModel":
    """A model that does as its script says, under every name."""
    from scripted_model import hire

    return hire(monkeypatch)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real model, small and random: it always answers with one target, and reads up to 40 tokens."""
    from tiny_models import tiny_trackgpt

    where = tmp_path_factory.mktemp("models") / "tiny"
    tiny_trackgpt("conv", "conv", tied=True, answer="forced").save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos, golden vectors and papers that lies beside the repository; skips where it does not."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ does not lie beside this checkout")
    return SHARED
