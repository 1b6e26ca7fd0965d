"""What a DeepSpeed file asks of the machine is looked for before anything is started."""

import json
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.engine.train_options import TrainOptions
from megadec.engine.zero import engine as zero
from megadec.engine.zero.settings import DeepSpeedSettings, merge_settings
from tests.support import PROJECT

SHIPPED = PROJECT / "ds_configs" / "zero3_nvme.json"


def settings(tmp_path: Path, nvme_path: str) -> DeepSpeedSettings:
    """The shipped file with another folder for both sections."""
    values = json.loads(SHIPPED.read_text())
    for name in ("offload_param", "offload_optimizer"):
        values["zero_optimization"][name]["nvme_path"] = nvme_path
    file = tmp_path / "nvme.json"
    file.write_text(json.dumps(values))
    return merge_settings(file, TrainOptions(global_batch_size=8, precision="bf16"), 1.0, 1)


def test_a_disk_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nvme\.json: zero_optimization\.offload_param\.nvme_path='.*/none' is no folder"
    ):
        zero.check_nvme(settings(tmp_path, str(tmp_path / "none")))


@pytest.mark.parametrize("there", [True, False])
def test_without_libaio_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    class Builder:
        def is_compatible(self, verbose: bool) -> bool:
            return there

    monkeypatch.setattr(zero, "AsyncIOBuilder", Builder)
    if there:
        zero.check_nvme(settings(tmp_path, str(tmp_path)))
    else:
        with pytest.raises(ConfigError, match=r"offload_param\.device=nvme needs .*libaio-dev"):
            zero.check_nvme(settings(tmp_path, str(tmp_path)))
