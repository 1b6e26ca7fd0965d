"""Continue a text: `python tools/generate.py --model runs/NAME --prompt 今天 [--sampling.temperature 0.8 ...]`.

In: a run, a checkpoint, or a megadec, Hugging Face, GGUF or ONNX folder. Out: on standard output, the
prompt and what follows it, as it is drawn, a line for each prompt.
"""

from megadec.common.errors import run_main
from megadec.export.commands import generate

if __name__ == "__main__":
    run_main(generate)
