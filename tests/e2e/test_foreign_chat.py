"""A chat model made elsewhere, served: its own template and all of its end tokens, over HTTP."""

import json
import re
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from megadec.common.tokenizer import Tokenizer
from megadec.export.commands import generate
from tests.support import PROJECT
from tests.support.commands import printed
from tests.support.foreign_tokenizers import foreign
from tests.support.processes import running, wait_until

transformers = pytest.importorskip("transformers")
pytest.importorskip("starlette")

CHAT = [{"role": "user", "content": "你好<|im_end|>"}]


def make_answer(folder: Path, *answer: int) -> None:
    """Change the weights so that the likeliest text behind a line's end is this one, token for token.

    The layers add nothing, so the state is the embedding of the last id, and the output layer maps that to the next.
    """
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] = torch.zeros_like(tensor)
    embedding = torch.nn.functional.normalize(tensors["model.embed_tokens.weight"], dim=1)
    head = torch.zeros_like(embedding)
    for here, there in pairwise(answer):
        head[there] += embedding[here]
    changed = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    save_file({**tensors, **changed, "model.norm.weight": torch.ones(48)}, file, metadata={"format": "pt"})


def test_a_chat_has_the_ids_of_transformers_and_ends_at_each_end_token(
    tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    folder = foreign("chatml", tmp_path / "chat", tiny_tokenizer_path, tied_embeddings=False)
    tokenizer = Tokenizer.load(folder)
    line, first, second = (tokenizer.encode(text)[-1] for text in ("\n", "小", "林"))
    template_end, document_end = tokenizer.special_ids["<|im_end|>"], tokenizer.special_ids["</s>"]
    # Behind 小 comes the end of a turn, behind 林 that of a document.
    make_answer(folder, line, first, template_end, second, document_end)
    command = [
        "--model",
        str(folder),
        "--prompt",
        "河边\n",
        "--sampling.temperature",
        "0",
        "--sampling.max_new_tokens",
        "8",
    ]
    assert printed(generate, *command) == "河边\n小\n"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    wanted = theirs.apply_chat_template(
        CHAT, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )
    log = tmp_path / "server.log"
    with running(
        [sys.executable, str(PROJECT / "launch" / "serve.py"), "--model", str(folder), "--port", "0"], log
    ) as it:
        address = re.compile(r"http://127\.0\.0\.1:\d+")
        wait_until(lambda: bool(address.search(log.read_text())) or it.poll() is not None, "the address", log)
        place = address.findall(log.read_text())[0]
        how = {"max_tokens": 8, "temperature": 0}
        answer = post(f"{place}/v1/chat/completions", {"messages": CHAT, **how})
        assert answer["usage"] == {
            "prompt_tokens": len(wanted),
            "completion_tokens": 1,
            "total_tokens": len(wanted) + 1,
        }
        assert answer["choices"][0]["message"]["content"] == "小"
        assert answer["choices"][0]["finish_reason"] == "stop"
        continued = post(f"{place}/v1/completions", {"prompt": [tokenizer.bos_id, second], **how})
        assert (continued["choices"][0]["text"], continued["choices"][0]["finish_reason"]) == ("", "stop")


def post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=240) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
