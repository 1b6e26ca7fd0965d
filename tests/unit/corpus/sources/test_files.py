"""Members of folders, compressed files and archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from megadec.common.errors import InputError
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources.encoding import whole_text
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

FILES = {
    "news/体育/1.txt": "一",
    "news/体育/2.txt": "二",
    "news/.hidden.txt": "隐",
    "news/图.png": "图",
    "名 单.txt": "三",
}
TEXTS = {"news/体育/1.txt": "一", "news/体育/2.txt": "二", "名 单.txt": "三"}


def read(path: Path, **options: tuple[str, ...]) -> dict[str, str]:
    found = members(path, (".txt",), ReadOptions(**options))  # type: ignore[arg-type]
    return {member.path.as_posix(): member.file.read().decode() for member in found}


def make_tar(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, text in FILES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.xz", "w:xz"), ("a.tgz", "w:gz"), ("a.tar.bz2", "w:bz2")]
)
def test_an_archive_gives_its_files_of_the_kind(tmp_path: Path, name: str, mode: str) -> None:
    assert read(make_tar(tmp_path / name, mode)) == TEXTS


def test_a_folder_and_a_zip_give_the_same_files(tmp_path: Path) -> None:
    for name, text in FILES.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    assert read(tmp_path / "folder") == TEXTS
    assert read(tmp_path / "a.zip") == TEXTS


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS = {"": bytes, ".xz": lzma.compress, ".bz2": bz2.compress, ".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_lone_file_is_read_through_its_compression(tmp_path: Path, suffix: str) -> None:
    data = "正文".encode() * 300
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESS[suffix](data))
    for member in members(tmp_path / f"a.txt{suffix}", (), ReadOptions()):
        assert member.path.as_posix() == "a.txt"
        assert member.file.read() == data


def test_patterns_choose_among_the_files(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "w")
    assert list(read(path, include=("news/*",))) == ["news/体育/1.txt", "news/体育/2.txt"]
    assert list(read(path, exclude=("*/2.txt", "名*"))) == ["news/体育/1.txt"]


def test_names_in_a_zip_from_chinese_windows_are_gbk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x" * 6 + ".txt", "内容")
    data = (tmp_path / "a.zip").read_bytes().replace(b"x" * 6, "体育7x".encode("gbk"))
    (tmp_path / "a.zip").write_bytes(data)
    assert read(tmp_path / "a.zip") == {"体育7x.txt": "内容"}


@pytest.mark.parametrize("name", ["a.txt.xz", "a.txt.gz", "a.txt.bz2", "a.tar.xz", "a.zip"])
def test_a_file_that_is_cut_short_is_an_input_error_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = "".join(map(chr, range(0x4E00, 0x9000))).encode()
    if name == "a.tar.xz":
        make_tar(path, "w:xz")
    elif name == "a.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", data)
    else:
        path.write_bytes(COMPRESS[path.suffix](data))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match=f"{name}.*damaged or cut short"):
        [whole_text(member, ReadOptions(), CorpusReport()) for member in members(path, (".txt",), ReadOptions())]


def test_what_is_missing_is_an_input_error(tmp_path: Path) -> None:
    for name in ("none.txt", "none.zip", "none.tar.xz"):
        with pytest.raises(InputError, match="no such file or folder"):
            list(members(tmp_path / name, (".txt",), ReadOptions()))
