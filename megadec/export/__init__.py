"""Checkpoint -> folders that others can load: Hugging Face, GGUF, ONNX, megadec; proved before they are named."""
