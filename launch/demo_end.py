"""The end of `make demo`: generated text through the Python interface, two answers over HTTP, a summary, result.json.

launch/demo.sh starts it with DEMO (the folder), SERVICE (the address) and SECONDS_BEFORE in the environment.
"""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import megadec
from megadec.corpus.document import full_text, read_documents

# Headlines and the beginnings of their articles, in the form of the sample corpus.
PROMPTS = ("新茶上市\n昨天，", "主场取胜\n比赛结束后，", "公司发布年报\n公司", "学校开学\n老师")
GENERATED_CHARACTERS = 200
TITLE = "主场球迷欢呼 北山队夺得联赛冠军"


def known_pairs(texts: list[str], folder: Path) -> float:
    """The share of the pairs of neighbouring characters of `texts` that occur in the documents."""
    corpus = {
        text[i : i + 2]
        for document in read_documents(sorted((folder / "documents").glob("*.parquet")))
        for text in [full_text(document)]
        for i in range(len(text) - 1)
    }
    pairs = [text[i : i + 2] for text in texts for i in range(len(text) - 1)]
    return sum(pair in corpus for pair in pairs) / max(1, len(pairs))


def generated(folder: Path) -> list[str]:
    """What the exported model writes behind the prompts in turn, shown; returned without them, GENERATED_CHARACTERS."""
    model = megadec.load(folder / "exports" / "demo-hf")
    texts: list[str] = []
    while (left := GENERATED_CHARACTERS - sum(map(len, texts))) > 0:
        prompt = PROMPTS[len(texts) % len(PROMPTS)]
        text = model.generate(prompt, max_new_tokens=60, temperature=0.3, top_k=5, seed=len(texts))
        print(prompt + text)
        texts.append(text[:left] or "\n")  # an empty answer counts, so that this ends
    return texts


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """What the service answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["SERVICE"] + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_for_service() -> None:
    """Raises URLError when nothing answers in two minutes."""
    for left in range(600, -1, -1):
        try:
            ask("/healthz")
            return
        except urllib.error.URLError:
            if not left:
                raise
            time.sleep(0.2)


def main() -> None:
    """Generate, ask, sum up."""
    begun, folder = time.monotonic(), Path(os.environ["DEMO"])
    share = known_pairs(generated(folder), folder)
    wait_for_service()
    print("POST /v1/classify", TITLE, "->", json.dumps(ask("/v1/classify", {"texts": TITLE}), ensure_ascii=False))
    body = {"model": "demo-hf", "prompt": "昨天", "max_tokens": 24, "temperature": 0.4, "seed": 1}
    print("POST /v1/completions", body["prompt"], "->", ask("/v1/completions", body)["choices"][0]["text"])
    accuracy = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))["accuracy"]
    print(
        f"\n== What was made\n"
        f"{folder}/documents, tokenizer, shards   the corpus, its vocabulary, what training reads\n"
        f"{folder}/runs/demo, loss.png            the run: checkpoints, metrics.jsonl, its curves\n"
        f"{folder}/exports/demo-hf                the decoder for transformers, vLLM and SGLang\n"
        f"{folder}/exports/demo-classifier        the classifier; confusion.png shows its mistakes on 50 titles\n"
        f"Next: python launch/serve.py --model {folder}/exports/demo-hf --classifier {folder}/exports/demo-classifier"
        f"\n      and open http://127.0.0.1:8000/; docs/en/quick-start.md does the same with your own text\n"
    )
    seconds = round(float(os.environ["SECONDS_BEFORE"]) + time.monotonic() - begun)
    found = {"known_pairs": round(share, 3), "accuracy": accuracy, "seconds": seconds}
    (folder / "result.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
