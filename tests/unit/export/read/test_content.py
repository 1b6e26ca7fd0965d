"""What a folder of weights holds, wherever it lies."""

import shutil
from pathlib import Path

from megadec.export.read.content import READ_BYTES, content_of
from megadec.export.read.megadec import to_megadec
from tests.support.sources import random_source


def test_a_copy_has_the_same_content_and_other_weights_have_another(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "a")
    to_megadec(random_source(tiny_tokenizer_path, hidden_size=33), tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "elsewhere") != content_of(tmp_path / "b")


def test_without_a_manifest_names_sizes_begins_and_ends_tell_files_of_weights_apart(tmp_path: Path) -> None:
    file, found = tmp_path / "model.safetensors", set[str]()
    for size, changed in ((9, None), (9, 0), (9, 8), (10, None), (3 * READ_BYTES, None), (3 * READ_BYTES, -1)):
        content = bytearray(size)
        if changed is not None:
            content[changed] = 1
        file.write_bytes(content)
        found.add(content_of(tmp_path))
    assert len(found) == 6
    file.rename(tmp_path / "model-00001-of-00001.safetensors")
    assert content_of(tmp_path) not in found
