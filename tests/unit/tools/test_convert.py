"""The command line of the conversion.

What it converts is tested in tests/numerics/, a file for each format; that it writes the format that was asked for, in
tests/unit/serve/test_open.py and tests/e2e/test_quick_start.py.
"""

import pytest

from megadec.common.errors import ConfigError
from megadec.export.commands import convert as main
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from tests.support.sources import random_classifier, random_source


def test_a_folder_is_converted_to_the_dtype_that_was_asked(tmp_path, tiny_tokenizer_path, capsys):
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "m")
    small = tmp_path / "small"
    main(["--input", str(tmp_path / "m"), "--to", "megadec", "--output", str(small), "--dtype", "bfloat16"])
    assert str(open_model(small).dtype) == "torch.bfloat16"
    assert capsys.readouterr().out == f"{small}\n"


def test_a_classifier_is_not_converted_to_gguf(tmp_path, tiny_tokenizer_path):
    to_megadec(random_classifier(tiny_tokenizer_path), tmp_path / "m")
    with pytest.raises(ConfigError, match=r"is a classifier: .* --to hf or --to onnx"):
        main(["--input", str(tmp_path / "m"), "--to", "gguf", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "ggml"], "'gguf'"),
        (["--to", "hf", "--dtype", "q8_0"], "dtype=q8_0: --to hf writes auto, bfloat16, float32"),
        (["--to", "megadec", "--dtype", "float16"], "dtype=float16: --to megadec writes"),
        (["--to", "onnx", "--dtype", "bfloat16"], "dtype=bfloat16: --to onnx writes auto, float32, int8"),
        (["--to", "gguf", "--dtype", "q4_0"], "q4_k_m"),
        (["--to", "megadec", "--layout", "llama"], "layout=llama"),
        (["--to", "gguf", "--layout", "llama"], "layout=llama is for --to hf"),
        (["--to", "onnx", "--max_shard_bytes", "5000"], "max_shard_bytes=5000 is for --to hf"),
        (["--to", "hf", "--max_shard_bytes", "0"], "max_shard_bytes=0"),
        (["--to", "hf", "--parity", "none"], "'quick', 'full'"),
        (["--to", "hf", "--laout", "llama"], "did you mean 'layout'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_read(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(["--input", str(tmp_path / "nothing"), "--output", str(tmp_path / "out"), *arguments])


def test_an_output_that_exists_is_refused_before_the_input_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        main(["--input", str(tmp_path / "nothing"), "--to", "hf", "--output", str(tmp_path / "out")])
