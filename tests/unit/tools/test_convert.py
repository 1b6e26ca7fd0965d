"""The command line of the conversion; what it converts is tested in tests/numerics/test_export.py."""

from __future__ import annotations

import pytest

from megadec.common.errors import ConfigError
from megadec.export.consolidate import open_model
from megadec.export.megadec import to_megadec
from tests.unit.export.conftest import random_source
from tools.convert import main


def test_a_folder_is_converted_to_the_dtype_that_was_asked(tmp_path, tiny_tokenizer_path, capsys):
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "m")
    small = tmp_path / "small"
    main(["--input", str(tmp_path / "m"), "--to", "megadec", "--output", str(small), "--dtype", "bfloat16"])
    assert str(open_model(small).dtype) == "torch.bfloat16"
    assert capsys.readouterr().out == f"{small}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "gguf"], "to"),
        (["--to", "megadec", "--layout", "llama"], "layout=llama"),
        (["--to", "hf", "--max_shard_bytes", "0"], "max_shard_bytes=0"),
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
