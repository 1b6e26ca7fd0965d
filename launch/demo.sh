#!/usr/bin/env bash
# The whole line on the sample corpus, on any machine: raw dump -> documents -> shards -> ZeRO-3 pretraining -> Hugging
# Face export -> generated text -> a fine-tuned classifier -> both answering over HTTP. `make demo` calls it with the
# environment's programs first in PATH; arguments are more options of the pretraining: `bash launch/demo.sh --train.steps 20`.
set -euo pipefail
cd "$(dirname "$0")/.."

DEMO=${DEMO:-demo}     # everything that is made goes below this folder
RANKS=${RANKS:-2}      # processes that train together
FINETUNE=${FINETUNE:-} # more options of the fine-tuning, such as "--epochs 2"
HELD=$DEMO/shards/held-out
TOKENIZER=tokenizer/zh_32k/tokenizer.model

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
train() { deepspeed --num_accelerators "$RANKS" --master_port "$(free_port)" "$@"; }
step() { printf '\n== %s\n' "$*"; }

if [ -e "$DEMO" ] && [ ! -e "$DEMO/.demo" ]; then
  echo "error: $DEMO exists and was not made by the demo; name another folder with DEMO=FOLDER" >&2
  exit 2
fi
rm -rf "$DEMO"
mkdir -p "$DEMO" && touch "$DEMO/.demo"
step "1. Raw text to documents to shards"
prepare() { python tools/prepare.py --tokenizer "$TOKENIZER" --held-out-fraction 0.05 "$@"; }
prepare --source zhwiki --input samples/zhwiki/sample-pages-articles.xml.bz2 \
  --output "$DEMO/shards/zhwiki" --held-out "$HELD/zhwiki"
prepare --source thucnews --input samples/thucnews --exclude '*dev.txt' \
  --output "$DEMO/shards/thucnews" --held-out "$HELD/thucnews"
prepare --source comments --input samples/comments/comments.csv \
  --output "$DEMO/shards/comments" --held-out "$HELD/comments"

step "2. Pretraining: DeepSpeed ZeRO-3, $RANKS ranks"
train launch/pretrain.py \
  --deepspeed ds_configs/zero3.json --config launch/runs/demo.yaml --output-folder "$DEMO/runs" \
  --data.train "{$DEMO/shards/zhwiki: 1.0, $DEMO/shards/thucnews: 1.0, $DEMO/shards/comments: 1.0}" \
  --evaluate.sets "{zhwiki: $HELD/zhwiki, thucnews: $HELD/thucnews, comments: $HELD/comments}" "$@"

step "3. Checkpoint to Hugging Face, compared before it gets its name"
python tools/convert.py --input "$DEMO/runs/demo" --to hf --output "$DEMO/exports/demo-hf"

step "4. Generated text"
python tools/generate.py --model "$DEMO/exports/demo-hf" --prompt "茶" "石桥" "今天的比赛" \
  --sampling.max-new-tokens 40 --sampling.temperature 0.8 --sampling.top-k 40 --sampling.repetition-penalty 1.1

step "5. Fine-tuning: ten classes of titles"
# shellcheck disable=SC2086 the options are meant to be split
train launch/finetune.py \
  --deepspeed ds_configs/zero2.json --config launch/runs/finetune_demo.yaml --output-folder "$DEMO/runs" \
  --model.path "$DEMO/exports/demo-hf" $FINETUNE
python tools/convert.py --input "$DEMO/runs/finetune_demo" --to hf --output "$DEMO/exports/demo-classifier"
python tools/evaluate.py --model "$DEMO/exports/demo-classifier" --data samples/thucnews/titles/dev.txt \
  --output "$DEMO/classifier.json" --confusion "$DEMO/confusion.png" >/dev/null
python -c 'import json, sys; print("accuracy on 50 titles:", json.load(open(sys.argv[1]))["accuracy"])' "$DEMO/classifier.json"

step "6. An answer over HTTP"
SERVICE=$(free_port)
python launch/serve.py --model "$DEMO/exports/demo-hf" --classifier "$DEMO/exports/demo-classifier" --port "$SERVICE" &
trap 'kill %1 2>/dev/null && wait %1' EXIT
python - "http://127.0.0.1:$SERVICE" <<'PYTHON'
import json, sys, time, urllib.error, urllib.request

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(sys.argv[1] + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)

for _ in range(600):
    try:
        ask("/healthz")
        break
    except urllib.error.URLError:
        time.sleep(0.2)
text = "主场球迷欢呼 北山队夺得联赛冠军"
print("POST /v1/classify", text, "->", json.dumps(ask("/v1/classify", {"texts": text}), ensure_ascii=False))
body = {"model": "demo-hf", "prompt": "石桥", "max_tokens": 24, "temperature": 0.8, "seed": 1}
print("POST /v1/completions", body["prompt"], "->", ask("/v1/completions", body)["choices"][0]["text"])
PYTHON
