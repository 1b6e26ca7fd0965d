"""The bench of augmentation: pairs of a seed are compared, each seed draws its titles, and the SVM's rows are real."""

import json

import pytest

from bench import augment
from bench.augment import AugmentBench, bars, draw, interval, main
from megadec.common.errors import ConfigError
from tests.support.titles import write_titles


@pytest.fixture
def options(tmp_path):
    return AugmentBench(data=write_titles(tmp_path / "titles"), work=tmp_path / "work", labels=9)


def test_a_seed_draws_as_many_titles_of_each_class_and_another_seed_others(options):
    lines = [(draw(options, seed) / "train.txt").read_text(encoding="utf-8").splitlines() for seed in (0, 1)]
    assert [sorted(line[-1] for line in some) for some in lines] == [list("000111222")] * 2
    assert lines[0] != lines[1]
    pool = (options.data / "train.txt").read_text(encoding="utf-8").splitlines()
    assert set(lines[0]) <= set(pool)


def test_an_interval_is_students_over_the_pairs():
    low, high = interval([0.01, 0.02, 0.03])
    assert (low + high) / 2 == pytest.approx(0.02)
    assert high - 0.02 == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)


def test_a_bar_is_the_setting_that_was_fixed_beforehand():
    rows = [
        {"classifier": "svm", "setting": "synonyms x4", "gain": 0.1},
        {"classifier": "svm", "setting": "all", "gain": 0.0049},
        {"classifier": "decoder", "setting": "all", "gain": 0.005},
    ]
    found = bars(rows)
    assert [one["holds"] for one in found.values()] == [False, True]
    assert list(found) == ["svm_gains_half_a_point", "decoder_gains_half_a_point"]


def test_the_rows_of_the_svm_are_measured_on_the_same_titles(options, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "work" / "vectors"
    folder.mkdir(parents=True)
    (folder / "vectors.txt").write_text("2 2\n木匠 1 0\n船长 0.9 0.1\n", encoding="utf-8")
    (tmp_path / "work" / "shards").mkdir()
    monkeypatch.setitem(augment.SETTINGS, "all", {"copies": 2, "swap": 0.5})
    arguments = ["--data", options.data, "--work", options.work, "--output", tmp_path / "out.json", "--labels", 9]
    main([*map(str, arguments), "--classifiers", "svm", "--seeds", "0", "1", "--settings", "all"])
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    none, every = result["rows"]
    assert (none["setting"], none["gain"], every["setting"]) == ("none", 0.0, "all")
    assert every["gain"] == pytest.approx(every["accuracy"] - none["accuracy"], abs=2e-5)
    assert "svm_gains_half_a_point" in result["bars"]
    assert '"setting": "none"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classifiers": ("tree",)}, "classifiers='tree' is none of svm, decoder"),
        ({"settings": ("synonym",)}, "settings='synonym' is none of"),
        ({"seeds": (1,)}, "seeds: an interval needs at least two"),
    ],
)
def test_a_wrong_request_is_named(tmp_path, values, words):
    with pytest.raises(ConfigError, match=words):
        AugmentBench(data=tmp_path, work=tmp_path, **values)
