"""Weights beside a graph: written and read tensor by tensor, and found where the graph says."""

import weakref

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.export.onnx.decoder import build_graph
from megadec.export.onnx.files import compare_weights, map_weights, write_onnx
from tests.support.sources import InMemory, random_source

onnx = pytest.importorskip("onnx")


@pytest.fixture
def source(tiny_tokenizer_path):
    return random_source(tiny_tokenizer_path, layers=6)


def write(folder, source):
    write_onnx(folder, build_graph(source.shape), source)


def test_what_was_written_is_read_and_the_onnx_library_reads_the_same_with_its_task(tmp_path, source):
    write(tmp_path, source)
    assert list(compare_weights(tmp_path, source)) == source.names()
    model = onnx.load(tmp_path / "model.onnx")  # with its weights
    theirs = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for name in source.names():
        assert torch.equal(torch.from_numpy(theirs[name].copy()), source.tensor(name)), name
    assert {note.key: note.value for note in model.metadata_props} == {"megadec.task": '{"kind": "language_model"}'}


@pytest.mark.parametrize("work", [write, compare_weights])
def test_no_more_than_two_tensors_are_held_at_a_time(tmp_path, source, work, monkeypatch):
    write(tmp_path, source)
    given, held, read = [], [], InMemory.read

    def counted(self, name):
        held.append(sum(reference() is not None for reference in given))
        tensor = read(self, name)
        given.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(InMemory, "read", counted)
    work(tmp_path, source)
    assert len(held) == len(source.names())
    assert max(held) <= 1  # and the one that is being read


def test_bfloat16_weights_are_written_as_the_same_numbers(tmp_path, source):
    for name, tensor in source.reader.tensors.items():
        source.reader.tensors[name] = tensor.bfloat16()
    write(tmp_path, source)
    read = compare_weights(tmp_path, source)
    assert all(torch.equal(read[name].bfloat16(), source.tensor(name)) for name in source.names())


def test_every_tensor_begins_on_a_page_of_the_one_file_and_any_other_place_is_refused(tmp_path, source):
    """A file from elsewhere cannot make us read another file of the machine."""
    write(tmp_path, source)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    outside = [entry for entry in model.graph.initializer if entry.external_data]
    places = [{item.key: item.value for item in entry.external_data} for entry in outside]
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    outside[0].external_data[0].value = "other.data"
    (tmp_path / "other.data").write_bytes((tmp_path / "model.onnx.data").read_bytes())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=f"tensor {outside[0].name!r} is neither float32 nor uint8"):
        map_weights(tmp_path)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    for folder, words in ((tmp_path, r"model\.onnx is not a whole ONNX model"), (tmp_path / "missing", "missing")):
        with pytest.raises(ExportError, match=words):
            map_weights(folder)


def test_a_tensor_that_the_source_has_not_is_refused(tmp_path, source, tiny_tokenizer_path):
    write(tmp_path, source)
    with pytest.raises(ExportError, match=r"tensor 'layers\.5\..*' is missing or is not one of"):
        compare_weights(tmp_path, random_source(tiny_tokenizer_path, layers=5))
