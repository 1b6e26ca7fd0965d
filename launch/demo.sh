#!/usr/bin/env bash
# The whole line on the sample corpus, on any machine: raw dump -> documents -> vocabulary -> shards -> ZeRO-3 pretraining
# -> Hugging Face export -> a classifier -> generated text and both answering over HTTP. `make demo` calls it with the
# environment's programs first in PATH; arguments are more options of the pretraining: `bash launch/demo.sh --train.steps 20`.
# Its last line is one JSON object: known_pairs, accuracy, seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

DEMO=${DEMO:-demo}     # everything that is made goes below this folder
RANKS=${RANKS:-2}      # processes that train together
FINETUNE=${FINETUNE:-} # more options of the classifier, such as "--epochs 2"
TOKENIZER=$DEMO/tokenizer/tokenizer.model
BEGUN=$SECONDS

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# The launcher's own lines are left out; what goes wrong is shown.
train() { deepspeed --log_level error --num_accelerators "$RANKS" --master_port "$(free_port)" "$@"; }
step() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - BEGUN)); }

if [ -e "$DEMO" ] && [ ! -e "$DEMO/.demo" ]; then
  echo "error: $DEMO exists and was not made by the demo; name another folder with DEMO=FOLDER" >&2
  exit 2
fi
rm -rf "$DEMO"
mkdir -p "$DEMO" && touch "$DEMO/.demo"
# DeepSpeed warns that it found no GPU unless it is told so.
python -c 'import sys, torch; sys.exit(torch.cuda.is_available())' && export DS_ACCELERATOR=cpu

step "1. Raw text to documents"
prepare() { python tools/prepare.py --variant zh-Hans "$@"; }
prepare --source zhwiki --input samples/zhwiki/sample-pages-articles.xml.bz2 --documents "$DEMO/documents/zhwiki.parquet"
prepare --source thucnews --input samples/thucnews --exclude '*dev.txt' --documents "$DEMO/documents/thucnews.parquet"
prepare --source comments --input samples/comments/comments.csv --documents "$DEMO/documents/comments.parquet"

step "2. A small vocabulary, and documents to shards"
python tokenizer/train.py --input "$DEMO"/documents/*.parquet --vocab-size 3072 --held-out-fraction 0.05 --output "$DEMO/tokenizer"
for name in zhwiki thucnews comments; do
  python tools/prepare.py --source documents --input "$DEMO/documents/$name.parquet" --tokenizer "$TOKENIZER" \
    --output "$DEMO/shards/$name" --held-out-fraction 0.05 --held-out "$DEMO/shards/held-out/$name" | tail -n 1
done

step "3. Pretraining: DeepSpeed ZeRO-3, $RANKS ranks"
HELD=$DEMO/shards/held-out
train launch/pretrain.py \
  --deepspeed ds_configs/zero3.json --config launch/runs/demo.yaml --output-folder "$DEMO/runs" --tokenizer "$TOKENIZER" \
  --data.train "{$DEMO/shards/zhwiki: 0.5, $DEMO/shards/thucnews: 1.5, $DEMO/shards/comments: 1.0}" \
  --evaluate.sets "{zhwiki: $HELD/zhwiki, thucnews: $HELD/thucnews, comments: $HELD/comments}" "$@"
python tools/plot.py --run "$DEMO/runs/demo" --output "$DEMO/loss.png"

step "4. Checkpoint to Hugging Face, compared before it gets its name"
python tools/convert.py --input "$DEMO/runs/demo" --to hf --output "$DEMO/exports/demo-hf"

step "5. A classifier: ten classes of titles and articles"
# shellcheck disable=SC2086 the options are meant to be split
train launch/finetune.py \
  --deepspeed ds_configs/zero2.json --config launch/runs/finetune_demo.yaml --output-folder "$DEMO/runs" \
  --model.path "$DEMO/exports/demo-hf" --data.train "$DEMO/documents/thucnews.parquet" $FINETUNE
python tools/convert.py --input "$DEMO/runs/finetune_demo" --to hf --output "$DEMO/exports/demo-classifier"
python tools/evaluate.py --model "$DEMO/exports/demo-classifier" --data samples/thucnews/titles/dev.txt \
  --output "$DEMO/classifier.json" --confusion "$DEMO/confusion.png" >/dev/null

step "6. Generated text, and answers over HTTP"
SERVICE=$(free_port)
python launch/serve.py --model "$DEMO/exports/demo-hf" --classifier "$DEMO/exports/demo-classifier" --port "$SERVICE" &
trap 'kill %1 2>/dev/null || true' EXIT
DEMO=$DEMO SERVICE=http://127.0.0.1:$SERVICE SECONDS_BEFORE=$((SECONDS - BEGUN)) python launch/demo_end.py
kill %1 && wait %1
cat "$DEMO/result.json"
