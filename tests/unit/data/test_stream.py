"""Streams refuse what cannot be, and a state that belongs to another sequence."""

import json
import shutil

import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.dataset import DataSet, DocumentSpan
from megadec.data.shuffle import Shuffle
from megadec.data.stream import TrainStream

SETTINGS = {"sequence_length": 64, "packing": "cut", "seed": 1, "global_batch_size": 12}


@pytest.fixture(scope="module")
def other(tmp_path_factory, tiny_documents, tiny_tokenizer_path) -> DataSet:
    folder = tmp_path_factory.mktemp("other") / "other"
    write_shards(tiny_documents[:50], Tokenizer.load(tiny_tokenizer_path), folder)
    return DataSet.open(folder)


def test_a_step_that_does_not_divide_is_a_config_error_with_all_three_numbers(data):
    stream = TrainStream([(data, 1.0)], **SETTINGS)
    message = r"train\.global_batch_size=12 is not a multiple of 4 \(train\.micro_batch_size\) x 2 \(ranks\)"
    with pytest.raises(ConfigError, match=message):
        stream.batch(0, 0, 2, 4)
    with pytest.raises(ConfigError, match=r"not a multiple of .* 5 \(ranks\)"):
        stream.batch(0, 0, 5)


def test_sets_of_different_tokenizers_are_not_mixed(data, other):
    stranger = DataSet.open(other.folder)
    stranger.tokenizer_sha256 = "f" * 64
    with pytest.raises(ShardError, match="share one tokenizer"):
        TrainStream([(data, 1.0), (stranger, 1.0)], **SETTINGS)


def test_the_state_is_json_and_gives_back_its_step_wherever_the_set_lies_now(data, tmp_path):
    stream = TrainStream([(data, 1.0)], **SETTINGS)
    state = json.loads(json.dumps(stream.state(17)))
    assert state["step"] == 17
    assert state["windows"] == 17 * 12
    assert state["epoch"] == 17 * 12 // stream.windows_per_epoch
    moved = DataSet.open(shutil.copytree(data.folder, tmp_path / "elsewhere"))
    assert TrainStream([(moved, 1.0)], **SETTINGS).check(state) == 17


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 2}, "seed is 2, the checkpoint has 1"),
        ({"sequence_length": 32}, "sequence_length is 32, the checkpoint has 64"),
        ({"packing": "best_fit"}, "packing is best_fit, the checkpoint has cut"),
        ({"global_batch_size": 6}, "global_batch_size is 6, the checkpoint has 12"),
    ],
)
def test_a_changed_setting_is_a_config_error_that_names_it(data, plan_cache, change, words):
    state = TrainStream([(data, 1.0)], **SETTINGS).state(3)
    with pytest.raises(ConfigError, match=words):
        TrainStream([(data, 1.0)], **{**SETTINGS, **change}).check(state)


def test_a_changed_weight_number_or_content_of_the_sets_is_refused(data, other):
    state = TrainStream([(data, 1.0)], **SETTINGS).state(3)
    with pytest.raises(ConfigError, match=r"weight of data set 0 \(tiny\) is 2\.0, the checkpoint has 1\.0"):
        TrainStream([(data, 2.0)], **SETTINGS).check(state)
    with pytest.raises(ConfigError, match=r"data\.train has 2 sets, the checkpoint 1"):
        TrainStream([(data, 1.0), (other, 1.0)], **SETTINGS).check(state)
    with pytest.raises(ShardError, match=r"data set 0 \(other\) has the contents .* \(tiny\)"):
        TrainStream([(other, 1.0)], **SETTINGS).check(state)


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_the_steps_of_a_document_are_those_that_a_replay_of_the_run_finds(data, other, plan_cache, packing):
    stream = TrainStream([(data, 1.5), (other, 0.4)], 64, packing, 7, 6)
    stop = int(2.5 * stream.windows_per_epoch)
    order = Shuffle([stream.plan(number).windows for number in range(2)], [1.5, 0.4], 7)
    replayed: dict[tuple[int, DocumentSpan], list[int]] = {}
    for place, window in enumerate(stream.windows_at(0, stop)):
        for span in stream.documents_of(window):
            replayed.setdefault((window.data_set, span), []).append(place)
    for number, one in enumerate((data, other)):
        for span in one.documents_between(0, one.tokens):
            windows = stream.plan(number).windows_with(span)
            seen = [place for window in windows for place in order.places_of(number, window, stop)]
            assert sorted(seen) == replayed.get((number, span), [])
