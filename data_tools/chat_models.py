"""Chat models that answer one question: a local one of Hugging Face, or one behind an OpenAI-compatible endpoint.

Nothing here downloads anything. A local model comes from a folder or from what the Hugging Face cache holds already; an
endpoint is reached only because a person named it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.settings import parse_json

MOST_TOKENS = 400  # of an answer
TEMPERATURE = 0.9
_SECONDS = 120


class ChatModel(Protocol):
    """Answers a question."""

    @property
    def name(self) -> str:
        """Which model it is, for the cache and for the record; no address and no key."""
        ...

    def ask(self, system: str, question: str, seed: int) -> str:
        """One answer; the same for the same arguments, where the model can do so.

        Raises:
            ModelError: there is no answer to be had.
        """
        ...


class LocalChatModel:
    """A causal language model with a chat template, read through transformers."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        """Take a model and its tokenizer, which must have a chat template.

        Raises:
            ModelError: it has none.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"{name}: its tokenizer has no chat template; choose a chat or instruct model")
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name

    @classmethod
    def load(cls, name: str) -> LocalChatModel:
        """A model by folder, or by the name under which the Hugging Face cache has it.

        Raises:
            ModelError: it is not there, or is no causal language model with a chat template.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(name, local_files_only=True, dtype="auto")
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().split("\n")[0]
            raise ModelError(
                f"{name}: no chat model that can be read here ({first}); wanted a folder, or a model in the Hugging "
                f"Face cache; `hf download {name}` puts it there"
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, _identity(name))

    def ask(self, system: str, question: str, seed: int) -> str:
        import torch

        tokens = self.tokenizer.apply_chat_template(
            _messages(system, question), add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        asked = tokens["input_ids"].shape[1]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)  # generate() draws from the global generator, which is put back afterwards
            said = self.model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                do_sample=True,
                temperature=TEMPERATURE,
                max_new_tokens=MOST_TOKENS,
                pad_token_id=self.tokenizer.pad_token_id
                if self.tokenizer.pad_token_id is not None
                else self.tokenizer.eos_token_id,
            )
        return str(self.tokenizer.decode(said[0, asked:], skip_special_tokens=True)).strip()


def _identity(name: str) -> str:
    """A model's name, and for a folder a digest of its configuration and of the sizes of its files."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    facts = [(path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()]
    config = folder / "config.json"
    digest = hashlib.sha256(json.dumps(facts).encode() + (config.read_bytes() if config.is_file() else b""))
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: `POST <url>/chat/completions`.

    Attributes:
        url: its base, as "http://localhost:8000/v1".
        name: the model asked for.
        key: sent as bearer token, "" for none; shown nowhere.
        seconds: how long an answer may take.
    """

    url: str
    name: str
    key: str = ""
    seconds: float = _SECONDS

    def __post_init__(self) -> None:
        """Refuse an address that is none, or that holds a password.

        Raises:
            UsageError: it is such a one.
        """
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"endpoint {self.url!r}; wanted http:// or https:// and a host, as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise UsageError("the endpoint's address holds a name, a password or a query; a key belongs in a variable")

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, name={self.name!r})"

    def ask(self, system: str, question: str, seed: int) -> str:
        body = {
            "model": self.name,
            "messages": _messages(system, question),
            "temperature": TEMPERATURE,
            "max_tokens": MOST_TOKENS,
            "seed": seed,
        }
        answer = self._post(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode())
        try:
            return str(answer["choices"][0]["message"]["content"] or "").strip()
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{self.url}: an answer without choices[0].message.content ({error!r})") from error

    def _post(self, url: str, body: bytes) -> Any:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=self.seconds) as response:
                return parse_json(response.read(), url)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(300).decode("utf-8", "replace").replace("\n", " ")
            said = said.replace(self.key, "[key]") if self.key else said
            raise ModelError(f"{url}: {error.code} {error.reason} ({said}); {_advice(error.code)}") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ModelError(f"{url}: not reachable ({reason}); is the server up, and the address right?") from error
        except InputError as error:
            raise ModelError(f"{error}; wanted an OpenAI-compatible endpoint, ending in /v1") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: questions go where they were sent, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _advice(code: int) -> str:
    if 300 <= code < 400:
        return "it redirects, which is not followed: give the address that it leads to"
    if code in (401, 403):
        return "name the variable that holds the key with --api-key-env"
    if code == 404:
        return "the address should end in /v1, and the server must know the model"
    return "wait, then run it again: what was answered is kept"


def key_of(variable: str) -> str:
    """The API key in an environment variable; "" where it is not set.

    Raises:
        UsageError: it holds something that no header can carry.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError(
            f"the environment variable {variable} holds no key: it has characters that no header can carry"
        )
    return key


def _messages(system: str, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]
