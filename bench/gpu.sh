#!/usr/bin/env bash
# Every benchmark on one GPU in under nine minutes: JSON, one Markdown page, pictures.
#
#   bash bench/gpu.sh [--output FOLDER] [--wheels FOLDER] [--seconds 525] [--python PROGRAM] [--dry]
#
# --output: where README.md, results.json, at most five pictures and timeline.json.gz, the profile of a step of ours, go
# ($OUT when that is set, else bench/results/gpu). --wheels: a folder of wheels for a machine with torch and without network; they are
# installed aside and not into the machine's Python. --seconds: for everything; a benchmark that would go beyond is cut
# off. --dry: shapes so small that a CPU gets to the end, to try this script; its figures mean nothing.
#
# A benchmark that fails, takes too long or is missing is noted with what it said, and the next one runs. The most
# wanted come first. Status: 0 when the page is written, whatever became of the benchmarks; 2 for a wrong request.
#
# The wheels, made on a machine with network ("python3.12" is the GPU machine's version):
#   pip wheel --no-deps --no-build-isolation -w wheels deepspeed==0.19.8        (DS_BUILD_OPS=0; any Python)
#   pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#     --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d wheels -r bench/gpu_wheels.txt
set -u
cd "$(dirname "$0")/.."

output=${OUT:-bench/results/gpu}
wheels='' total=525 python=${PYTHON:-python3} dry=''
refuse() { echo "error: $1" >&2; exit 2; }
while (($#)); do
  case $1 in
    --output | --wheels | --seconds | --python) (($# > 1)) || refuse "$1 needs a value" ;;
  esac
  case $1 in
    --output) output=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    --seconds) total=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --dry) dry=1; shift ;;
    *) refuse "unknown option $1; known are --output --wheels --seconds --python --dry" ;;
  esac
done
[[ $total =~ ^[0-9]+$ ]] || refuse "--seconds=$total is not a whole number"
[[ -z $wheels || -d $wheels ]] || refuse "--wheels=$wheels is not a folder"

work=$(mktemp -d) || refuse "no temporary folder can be made"
# However it ends, what was measured until then becomes a page.
finish() {
  trap - EXIT
  "$python" -m bench.page --input "$work" --output "$output"
  status=$?
  for timeline in "$work"/timelines/ours*.json.gz; do
    [[ -f $timeline ]] && cp "$timeline" "$output/timeline.json.gz"
  done
  rm -rf "$work"
  exit "$status"
}

if [[ -n $wheels ]]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" \
    "$wheels"/*.whl || refuse "the wheels of $wheels cannot be installed"
  export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
fi
if [[ -z $dry ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  rm -rf "$work"
  refuse "torch of $python sees no GPU; --dry tries the script on a CPU"
fi
trap finish EXIT
trap 'exit 1' INT TERM

# run NAME SECONDS COMMAND...: its standard output becomes NAME.json, its standard error NAME.err, a line tells the rest.
run() {
  local name=$1 limit=$2 left=$((total - SECONDS)) began=$SECONDS status
  shift 2
  ((limit < left)) || limit=$left
  if ((left < 5)); then
    status=late
  else
    echo "$name: at most $limit s of the $left left" >&2
    timeout --kill-after=5 "$limit" "$@" >"$work/$name.json" 2>"$work/$name.err" </dev/null
    status=$?
  fi
  printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - began)) "$limit" "$*" >>"$work/status.tsv"
}

# bench NAME SECONDS ARGUMENTS...: the module is NAME up to the first hyphen.
bench() {
  local name=$1 limit=$2
  shift 2
  if [[ -f bench/${name%%-*}.py ]]; then
    run "$name" "$limit" "$python" -m "bench.${name%%-*}" "$@"
  else
    printf '%s\tmissing\t0\t0\t\n' "$name" >>"$work/status.tsv"
  fi
}

# 1.3B: 1,294 million parameters with a vocabulary of 32,000.
large=(--hidden_size 2048 --layers 26 --heads 16 --kv_heads 8 --head_size 128 --intermediate_size 5632
  --vocabulary_size 32000)
small=(--preset 124m)
tiny=(--hidden_size 64 --layers 2 --heads 4 --kv_heads 2 --head_size 16 --intermediate_size 128 --vocabulary_size 512
  --sequence_length 64 --rows 2)

if [[ -n $dry ]]; then
  bench step 240 "${tiny[@]}" --names ours transformers plain --rounds 1 \
    --timelines "$work/timelines"
  bench kernels 240 --hidden 64 --tensor_bytes 16384 --rounds 1 --calls 1 --compiled false --seconds 60
  bench attention 240 --sequence_length 64 --tokens 128 --document_tokens 16 --heads 2 --kv_heads 1 --head_size 16 --rounds 1
  bench loss 240 --vocabulary_size 512 --tokens 64 --hidden_size 32 --rounds 1
  bench memory 240 "${tiny[@]}" --policies none full --rounds 1
  bench zero 240 "${tiny[@]}" --cases plain zero3 --rounds 1
else
  run tests 45 "$python" -m pytest -q -m gpu $(grep -rl 'mark\.gpu' tests --include='test_*.py')
  bench step-1.3b-2048 150 "${large[@]}" --sequence_length 2048 --rows 8 --rounds 5 --limit_seconds 130 \
    --names ours_compiled transformers transformers_compiled transformers_liger ours
  bench step-124m-1024 65 "${small[@]}" --sequence_length 1024 --rows 32 --rounds 10 --limit_seconds 50 \
    --names ours_compiled transformers transformers_liger transformers_compiled --timelines "$work/timelines"
  bench kernels 70 --seconds 55
  bench attention 35
  bench zero-1.3b 45 "${large[@]}" --sequence_length 2048 --rows 4 --rounds 5 --cases plain zero3
  bench loss 20 --rounds 5
  bench step-1.3b-4096 100 "${large[@]}" --sequence_length 4096 --rows 4 --rounds 5 --limit_seconds 80 \
    --names ours_compiled transformers transformers_liger
  bench zero-124m 30 "${small[@]}" --sequence_length 1024 --rows 16 --rounds 10
  bench memory 60 "${small[@]}" --sequence_length 2048 --rows 16 --rounds 3
  # Should a Triton kernel fail on this GPU, this still says what the rest is worth.
  bench step-124m-torch 40 "${small[@]}" --sequence_length 1024 --rows 32 --rounds 5 --names ours_compiled \
    --execution.kernels torch
fi
