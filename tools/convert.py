"""Convert a model: a run, a checkpoint or a folder -> a Hugging Face, GGUF, ONNX or megadec folder.

    python tools/convert.py --input runs/NAME --to hf --output exports/NAME-hf [--dtype bfloat16|float32]
    python tools/convert.py --input runs/NAME --to gguf --output exports/NAME-gguf [--dtype ...|q8_0|q4_k_m]
    python tools/convert.py --input runs/NAME --to onnx --output exports/NAME-onnx [--dtype int8]

Each is loaded in its own runtime (transformers, llama.cpp, onnxruntime) and compared before it gets its name
(`--parity quick|full`); what a quantized one loses is told in bits per character. An output folder is never
overwritten; remove it first.
"""

from megadec.common.errors import run_main
from megadec.export.commands import convert

if __name__ == "__main__":
    run_main(convert)
