import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from made_trees import run
from tiny_models import tiny_tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from data_tools.chat_models import Endpoint, LocalChatModel, key_of
from data_tools.instructions import Instruction, read_instructions, write_instructions
from data_tools.rephrase import Cache, Failure, fault_of, paraphrases_of, rephrase
from trackgpt.errors import InputError, ModelError, UsageError

SEED = "Who is the fastest in this race?"
FIVE = [
    "Which runner is ahead of all others?",
    "Track whoever leads the race.",
    "Find the one that will win.",
    "Who is in front here?",
    "Follow the quickest of them.",
]
TEMPLATE = "{% for one in messages %}{{ one['role'] }}: {{ one['content'] }}\n{% endfor %}assistant:"


def seeds(path: Path, *texts: str) -> Path:
    write_instructions(path, [Instruction("vipseg", f"v{k}", (6100,), "train", text) for k, text in enumerate(texts)])
    return path


class Scripted:
    """A chat model that gives answers one after another and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def ask(self, system: str, question: str, seed: int) -> str:
        self.asked.append((question, seed))
        return self.answers.pop(0)


def one_seed() -> Instruction:
    return Instruction("vipseg", "v", (6100,), "train", SEED, where="seeds.jsonl:7")


# What an answer is taken for


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(FIVE),
        json.dumps(FIVE, indent=2),
        f"Here you are:\n```json\n{json.dumps(FIVE)}\n```\nGood luck!",
        "\n".join(f"{k}. {text}" for k, text in enumerate(FIVE, 1)),
        "\n\n".join(f"- {text}" for text in FIVE),
        "\n".join(f'{k}) "{text}"' for k, text in enumerate(FIVE, 1)),
    ],
)
def test_five_wordings_are_found_in_whatever_form_they_come(answer):
    assert paraphrases_of(answer) == FIVE
    assert fault_of(paraphrases_of(answer), SEED) == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (FIVE[:4], "4 wordings, not 5"),
        ([*FIVE, "And a sixth."], "6 wordings, not 5"),
        ([*FIVE[:4], " "], "an empty wording"),
        ([*FIVE[:4], "?!"], "an empty wording"),
        (
            [*FIVE[:4], "FIND the one, that will win"],
            "the same wording twice, or the seed: 'find the",
        ),
        ([*FIVE[:4], "who is the fastest in this race"], "the same wording twice, or the seed"),
        ([*FIVE[:4], "Track the **leader**."], "a wording with markup"),
        ([*FIVE[:4], "Track <TK> now."], "a wording with markup"),
        ([*FIVE[:4], "USER: who leads?"], "a wording with markup"),
        ([*FIVE[:4], "1. Who leads?"], "a wording with markup"),
        ([*FIVE[:4], "who " * 100], "a wording of 400 characters"),
    ],
)
def test_wordings_that_do_not_do_are_told(changed, words):
    assert words in fault_of(changed, SEED)


def test_an_answer_that_does_not_do_is_asked_for_again_with_another_seed(tmp_path):
    model = Scripted("no idea", json.dumps(FIVE[:3]), json.dumps(FIVE))
    done = rephrase(one_seed(), model, Cache(tmp_path / "cache"), seed=4)
    assert done.paraphrases == tuple(FIVE)
    assert done.rephrased_by == "scripted"
    assert [seed for _, seed in model.asked] == [4000, 4001, 4002]
    assert SEED in model.asked[0][0]


def test_after_so_many_attempts_it_is_a_failure_that_says_what_was_wrong(tmp_path):
    model = Scripted("no idea", json.dumps(FIVE[:3]), "unasked")
    failure = rephrase(one_seed(), model, Cache(tmp_path / "cache"), attempts=2)
    assert isinstance(failure, Failure)
    assert failure.faults == ("1 wordings, not 5", "3 wordings, not 5")
    assert str(failure).startswith("seeds.jsonl:7: 'Who is the fastest in this race?': 2 answers, none of use: ")
    assert model.answers == ["unasked"]


def test_what_is_rephrased_already_is_left_alone(tmp_path):
    done = Instruction("vipseg", "v", (), "train", SEED, paraphrases=("a", "b", "c", "d", "e"))
    assert rephrase(done, Scripted(), Cache(tmp_path / "cache")) is done


# The cache


def test_nothing_is_asked_twice(tmp_path):
    first = Scripted("no", json.dumps(FIVE))
    done = rephrase(one_seed(), first, Cache(tmp_path / "cache"))
    assert rephrase(one_seed(), Scripted(), Cache(tmp_path / "cache")) == done
    # another seed, another model and another question are other entries
    again = Scripted(json.dumps(FIVE))
    rephrase(one_seed(), again, Cache(tmp_path / "cache"), seed=1)
    other = Scripted(json.dumps(FIVE))
    other.name = "other"
    rephrase(one_seed(), other, Cache(tmp_path / "cache"))
    assert (len(again.asked), len(other.asked)) == (1, 1)


def test_a_last_line_that_was_cut_off_is_asked_for_again(tmp_path):
    rephrase(one_seed(), Scripted("no", json.dumps(FIVE)), Cache(tmp_path / "cache"))
    text = (tmp_path / "cache").read_text()
    (tmp_path / "cache").write_text(text[:-30])
    model = Scripted(json.dumps(FIVE))
    assert rephrase(one_seed(), model, Cache(tmp_path / "cache")).paraphrases == tuple(FIVE)
    assert [seed for _, seed in model.asked] == [1]
    (tmp_path / "cache").write_text("nonsense\n" + text)
    with pytest.raises(InputError, match="cache:1: no cached answer"):
        Cache(tmp_path / "cache")


# A local model


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The folder of a chat model with random weights."""
    folder = tmp_path_factory.mktemp("chat") / "tiny-chat"
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    return folder


def test_a_local_model_answers_the_same_for_the_same_seed_and_leaves_the_generator_alone(local, monkeypatch):
    monkeypatch.setattr("data_tools.chat_models.MOST_TOKENS", 12)
    model = LocalChatModel.load(str(local))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (model.ask("be short", "who?", seed) for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(torch.random.get_rng_state(), before)


class Recites(nn.Module):
    """An output layer that says `ids`, one a call, whatever it is given."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        super().__init__()
        self.ids, self.vocabulary, self.said = ids, vocabulary, 0

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], self.vocabulary)
        logits[..., self.ids[self.said]] = 1e4  # sampling at any temperature takes a word so far ahead of the others
        self.said += 1
        return logits


def test_a_local_model_that_knows_the_answer_rephrases(local, tmp_path):
    model = LocalChatModel.load(str(local))
    ids = model.tokenizer(json.dumps(FIVE), add_special_tokens=False)["input_ids"]
    model.model.lm_head = Recites([*ids, model.tokenizer.eos_token_id], len(model.tokenizer))
    done = rephrase(one_seed(), model, Cache(tmp_path / "cache"))
    assert done.paraphrases == tuple(FIVE)
    assert done.rephrased_by.startswith("tiny-chat@")


def test_a_model_that_says_nothing_of_use_is_reported_and_nothing_is_hidden(local, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data_tools.chat_models.MOST_TOKENS", 4)
    file, out = seeds(tmp_path / "seeds.jsonl", SEED), tmp_path / "out.jsonl"
    assert run("rephrase", file, "-o", out, "--model", local, "--attempts", 2) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"failed: {file}:1: 'Who is the fastest in this race?': 2 answers, none of use: ")
    assert lines[-1].startswith("instructions=1 failed=1 model=tiny-chat@")
    assert read_instructions(out) == read_instructions(file)  # written without paraphrases
    assert len((tmp_path / "out.cache.jsonl").read_text().splitlines()) == 2


def test_a_model_that_is_not_there_is_told_how_to_get(tmp_path):
    with pytest.raises(ModelError, match="no/such-model: no chat model that can be read here .*`hf download"):
        LocalChatModel.load("no/such-model")
    tokenizer = tiny_tokenizer()
    with pytest.raises(ModelError, match="its tokenizer has no chat template; choose a chat or instruct model"):
        LocalChatModel(torch.nn.Identity(), tokenizer, "plain")


# An endpoint


@contextmanager
def server(*answers: tuple[int, object]) -> Iterator[tuple[str, list]]:
    """An endpoint that gives (status, body) one after another, the last one again and again; and what it was sent."""
    seen: list[tuple[str, dict, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, body, self.headers.get("Authorization")))
            status, answer = answers[min(len(seen), len(answers)) - 1]
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:1/v1/chat/completions")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", seen
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def saying(text: str) -> tuple[int, object]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_an_endpoint_is_asked_once_for_each_seed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRACKGPT_API_KEY", "s3cret-key")
    other = [f"{text[:-1]} now?" for text in FIVE]
    file, out = seeds(tmp_path / "seeds.jsonl", SEED, "Who is last?"), tmp_path / "out.jsonl"
    with server(saying("hm"), saying(json.dumps(FIVE)), saying(json.dumps(other))) as (url, seen):
        words = ["rephrase", file, "-o", out, "--endpoint", url, "--endpoint-model", "chat-1"]
        assert run(*words) == 0
        assert [(path, body["model"], body["seed"], key) for path, body, key in seen] == [
            ("/v1/chat/completions", "chat-1", seed, "Bearer s3cret-key") for seed in (0, 1, 0)
        ]
        assert [one["role"] for one in seen[0][1]["messages"]] == ["system", "user"]
        assert run(*words) == 6  # the output is there
        assert run(*words, "--overwrite") == 0
        assert len(seen) == 3
    first, second = read_instructions(out)
    assert (first.paraphrases, second.paraphrases) == (tuple(FIVE), tuple(other))
    assert first.rephrased_by == "chat-1"
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    said = capsys.readouterr()
    assert "s3cret-key" not in written + said.out + said.err
    assert "instructions=2 failed=0 model=chat-1 " in said.out


def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path, capsys):
    file, out = seeds(tmp_path / "seeds.jsonl", SEED, "Who is last?"), tmp_path / "out.jsonl"
    words = ["rephrase", file, "-o", out, "--endpoint-model", "chat-1", "--endpoint"]
    with server(saying(json.dumps(FIVE)), (503, {"error": "overloaded"})) as (url, seen):
        assert run(*words, url) == 4
        assert len(seen) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert '503 Service Unavailable ({"error": "overloaded"}); wait, then run it again: what was answered is' in error
    assert not out.exists()
    with server(saying(json.dumps(FIVE))) as (url, seen):
        assert run(*words, url) == 0
        assert len(seen) == 1
    assert [one.paraphrases for one in read_instructions(out)] == [tuple(FIVE)] * 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {"error": "wrong key k3y"}), "401 Unauthorized .*name the variable that holds the key"),
        ((404, {}), "the address should end in /v1"),
        ((307, {}), "it redirects, which is not followed"),
        ((200, b"<html>"), "no JSON .*wanted an OpenAI-compatible endpoint"),
        ((200, {"choices": []}), r"an answer without choices\[0\]"),
    ],
)
def test_an_endpoint_that_answers_something_else_is_one_clear_error(answer, words):
    with server(answer) as (url, _), pytest.raises(ModelError, match=words) as error:
        Endpoint(url, "chat-1", "k3y").ask("s", "q", 0)
    assert "k3y" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_one_clear_error():
    with server() as (url, _):
        pass
    with pytest.raises(ModelError, match=r"not reachable \(.*refused.*\); is the server up, and the address right"):
        Endpoint(url, "chat-1").ask("s", "q", 0)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "localhost:8000", "http://", "http://me:pw@host/v1", "http://h/?k=1"]
)
def test_an_address_that_is_none_or_holds_a_password_is_refused(url):
    with pytest.raises(UsageError) as error:
        Endpoint(url, "chat-1")
    assert "pw" not in str(error.value)


def test_a_key_is_never_shown_and_must_fit_a_header(monkeypatch):
    assert "k3y" not in repr(Endpoint("http://localhost:8000/v1", "chat-1", "k3y"))
    monkeypatch.setenv("MY_KEY", "two\nlines")
    with pytest.raises(UsageError, match="MY_KEY holds no key") as error:
        key_of("MY_KEY")
    assert "two" not in str(error.value)
    assert key_of("NO_SUCH_KEY_AT_ALL") == ""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model", "a", "--endpoint", "http://h/v1", "--endpoint-model", "b"],
        ["--endpoint", "http://h/v1"],
        ["--model", "a", "--attempts", 0],
    ],
)
def test_a_request_that_does_not_say_whom_to_ask_is_refused(words, tmp_path):
    assert run("rephrase", seeds(tmp_path / "a.jsonl", SEED), "-o", tmp_path / "b.jsonl", *words) == 2
