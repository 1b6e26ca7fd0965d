"""Members of folders, compressed files and archives."""

import bz2
import gzip
import lzma
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from megadec.common.errors import InputError
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import whole_text
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

TEXTS = {"news/体育/1.txt": "一", "news/体育/2.txt": "二", "名 单.txt": "三"}
NOT_READ = {"news/.hidden.txt": "隐", "news/图.png": "图"}
ARCHIVES = {"a.tar": "tar", "a.tar.xz": "xztar", "a.tgz": "gztar", "a.tar.bz2": "bztar", "a.zip": "zip"}
ZSTD = partial(pa.compress, codec="zstd", asbytes=True)
COMPRESS = {"": bytes, ".xz": lzma.compress, ".bz2": bz2.compress, ".gz": gzip.compress, ".zst": ZSTD}


def read(path: Path, **options: tuple[str, ...]) -> dict[str, str]:
    found = members(path, (".txt",), ReadOptions(**options))  # type: ignore[arg-type]
    return {member.path.as_posix(): member.file.read().decode() for member in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**TEXTS, **NOT_READ}.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "folder"


def archive(folder: Path, name: str) -> Path:
    made = shutil.make_archive(str(folder.with_name("made")), ARCHIVES[name], folder)
    return Path(made).rename(folder.with_name(name))


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_folder_and_an_archive_give_the_same_files_of_the_kind(folder: Path, name: str) -> None:
    assert read(folder) == TEXTS
    assert read(archive(folder, name)) == TEXTS


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_lone_file_is_read_through_its_compression(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESS[suffix]("正文".encode() * 300))
    assert read(tmp_path / f"a.txt{suffix}") == {"a.txt": "正文" * 300}


def test_patterns_choose_among_the_files(folder: Path) -> None:
    assert list(read(folder, include=("news/*",))) == ["news/体育/1.txt", "news/体育/2.txt"]
    assert list(read(folder, exclude=("*/2.txt", "名*"))) == ["news/体育/1.txt"]


def test_names_in_a_zip_from_chinese_windows_are_gbk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x" * 6 + ".txt", "内容")
    data = (tmp_path / "a.zip").read_bytes().replace(b"x" * 6, "体育7x".encode("gbk"))
    (tmp_path / "a.zip").write_bytes(data)
    assert read(tmp_path / "a.zip") == {"体育7x.txt": "内容"}


@pytest.mark.parametrize("name", ["a.txt.xz", "a.txt.gz", "a.txt.bz2", "a.tar.xz", "a.zip"])
def test_a_file_that_is_cut_short_is_an_input_error_with_its_name(folder: Path, name: str) -> None:
    path = folder.with_name(name)
    if name in ARCHIVES:
        archive(folder, name)
    else:
        path.write_bytes(COMPRESS[path.suffix]("".join(map(chr, range(0x4E00, 0x9000))).encode()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match=f"{name}.*damaged or cut short"):
        [whole_text(member, ReadOptions(), CorpusReport()) for member in members(path, (".txt",), ReadOptions())]


def test_what_is_missing_is_an_input_error(tmp_path: Path) -> None:
    for name in ("none.txt", "none.zip", "none.tar.xz"):
        with pytest.raises(InputError, match="no such file or folder"):
            list(members(tmp_path / name, (".txt",), ReadOptions()))
