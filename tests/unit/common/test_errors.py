"""Laws of exit statuses and messages."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from megadec.common.errors import (
    ConfigError,
    MegadecError,
    StorageError,
    check_range,
    run_main,
    suggest,
)


@pytest.mark.parametrize(("error", "status"), [(ConfigError("key x"), 2), (StorageError("disk"), 1), (None, 0)])
def test_the_exit_status_says_whose_fault_it_was(
    error: MegadecError | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str]) -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_main(main, [])
    assert ended.value.code == status
    assert capsys.readouterr().err == (f"error: {error}\n" if error else "")


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    def main(argv: Sequence[str]) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        run_main(main, [])


def test_a_value_out_of_range_is_named_with_the_limits() -> None:
    for value in (0.0, 0.5, None):
        check_range(SimpleNamespace(share=value), "data.", "share", least=0, below=1)
    for value in (math.nan, math.inf):
        with pytest.raises(ConfigError, match=rf"data\.share={value} is not a finite number"):
            check_range(SimpleNamespace(share=value), "data.", "share", least=0)
    for value in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=rf"data\.share={value} is not at least 0 and below 1"):
            check_range(SimpleNamespace(share=value), "data.", "share", least=0, below=1)


def test_the_nearest_word_is_suggested_and_a_far_one_is_not() -> None:
    assert suggest("sequence_lenght", ["sequence_length", "seed"]) == " (did you mean 'sequence_length'?)"
    assert suggest("zzz", ["sequence_length", "seed"]) == ""
