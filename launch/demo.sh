#!/usr/bin/env bash
# The whole line on the sample corpus, on any machine: raw dump -> documents -> shards -> ZeRO-3 pretraining -> Hugging
# Face export -> generated text. `make demo` calls it with the environment's programs first in PATH; arguments are more
# options of the run: `bash launch/demo.sh --train.steps 20`.
set -euo pipefail
cd "$(dirname "$0")/.."

DEMO=${DEMO:-demo}     # everything that is made goes below this folder
RANKS=${RANKS:-2}      # processes that train together
HELD=$DEMO/shards/held-out
TOKENIZER=tokenizer/zh_32k/tokenizer.model
PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

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
deepspeed --num_accelerators "$RANKS" --master_port "$PORT" launch/pretrain.py \
  --deepspeed ds_configs/zero3.json --config launch/runs/demo.yaml --output-folder "$DEMO/runs" \
  --data.train "{$DEMO/shards/zhwiki: 1.0, $DEMO/shards/thucnews: 1.0, $DEMO/shards/comments: 1.0}" \
  --evaluate.sets "{zhwiki: $HELD/zhwiki, thucnews: $HELD/thucnews, comments: $HELD/comments}" "$@"

step "3. Checkpoint to Hugging Face, compared before it gets its name"
python tools/convert.py --input "$DEMO/runs/demo" --to hf --output "$DEMO/exports/demo-hf"

step "4. Generated text"
python tools/generate.py --model "$DEMO/exports/demo-hf" --prompt "茶" "石桥" "今天的比赛" \
  --sampling.max-new-tokens 40 --sampling.temperature 0.8 --sampling.top-k 40 --sampling.repetition-penalty 1.1
