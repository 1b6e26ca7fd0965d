"""How tokens are drawn: which ids stay, in which proportion, and that no row depends on another."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from megadec.decoding.sampling import Sampling, draw, penalize, scores

LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.5, 0.0])
DRAWS = 4000


def drawn(logits_V: Tensor, sampling: Sampling, times: int = DRAWS) -> Counter[int]:
    """How often each id came of so many rows, each with a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(times)]
    return Counter(draw(logits_V.expand(times, -1), [sampling] * times, generators))


def check_share(counts: Counter[int], wanted_V: Sequence[float]) -> None:
    for index, probability in enumerate(wanted_V):
        deviation = (probability * (1 - probability) / counts.total()) ** 0.5
        assert counts[index] / counts.total() == pytest.approx(probability, abs=4 * deviation + 1e-9)


def cut(probabilities: Tensor, keep: Tensor) -> list[float]:
    kept = probabilities * keep
    return (kept / kept.sum()).tolist()


def test_top_k_of_one_is_greedy_at_any_temperature() -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 50)
    generators = [torch.Generator().manual_seed(seed) for seed in range(20)]
    found = draw(logits, [Sampling(temperature=5.0, top_k=1, top_p=1.0)] * 20, generators)
    assert found == logits.argmax(-1).tolist() == draw(logits, [Sampling(temperature=0)] * 20, generators)


@pytest.mark.parametrize("k", [2, 3, 9])
def test_top_k_keeps_the_k_likeliest_in_their_proportion(k: int) -> None:
    likeliest = torch.zeros(5, dtype=torch.bool)
    likeliest[LOGITS.argsort(descending=True)[:k]] = True
    check_share(drawn(LOGITS, Sampling(temperature=1, top_k=k, top_p=1.0)), cut(LOGITS.softmax(-1), likeliest))


def test_of_equal_ids_at_the_edge_the_lower_ones_stay() -> None:
    assert set(drawn(torch.zeros(10), Sampling(temperature=1, top_k=3, top_p=1.0), 300)) == {0, 1, 2}
    assert set(drawn(torch.zeros(10), Sampling(temperature=1, top_p=0.25), 300)) == {0, 1, 2}


@pytest.mark.parametrize("p", [5e-324, 0.01, 0.5, 0.8, 0.95, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p_in_its_proportion(p: float) -> None:
    probabilities = LOGITS.softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    keep = torch.zeros(5, dtype=torch.bool)
    keep[order[0]] = True
    keep[order[ordered.cumsum(0) - ordered < p]] = True
    check_share(drawn(LOGITS, Sampling(temperature=1, top_p=p)), cut(probabilities, keep))


def test_top_p_is_a_share_of_what_top_k_leaves() -> None:
    probabilities = LOGITS.softmax(-1)
    three = probabilities.topk(3)
    least = float(three.values[:2].sum() / three.values.sum())
    assert set(drawn(LOGITS, Sampling(temperature=1, top_k=3, top_p=least - 0.01), 500)) == {1, 3}
    assert set(drawn(LOGITS, Sampling(temperature=1, top_k=3, top_p=least + 0.01), 500)) == {0, 1, 3}


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    probabilities = LOGITS.softmax(-1)
    keep = probabilities >= 0.2 * probabilities.max()
    check_share(drawn(LOGITS, Sampling(temperature=1, top_p=1, min_p=0.2)), cut(probabilities, keep))


def test_draws_follow_the_tempered_probabilities() -> None:
    check_share(drawn(LOGITS, Sampling(temperature=2.0, top_p=1.0)), (LOGITS / 2).softmax(-1).tolist())


def test_a_temperature_so_near_to_zero_that_a_logit_overflows_is_greedy() -> None:
    assert set(drawn(LOGITS * 1e30, Sampling(temperature=1e-30), 5)) == {1}


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    torch.manual_seed(1)
    logits = torch.randn(24, 400) * 3
    options = [
        Sampling(temperature=t, top_k=k, top_p=p, min_p=m)
        for t in (0.0, 0.7, 1.5) for k in (0, 20) for p in (0.3, 1.0) for m in (0.0, 0.05)
    ]  # fmt: skip
    together = [torch.Generator().manual_seed(seed) for seed in range(24)]
    alone = [torch.Generator().manual_seed(seed) for seed in range(24)]
    for _ in range(20):
        found = draw(logits, options, together)
        single = [draw(logits[row][None], [options[row]], [alone[row]])[0] for row in range(24)]
        assert found == single


def test_a_penalty_lowers_seen_logits_of_either_sign_once_and_no_others() -> None:
    before = LOGITS.clone()
    penalized = penalize(LOGITS, Sampling(repetition_penalty=2.0), [1, 2, 2, 2], [])
    torch.testing.assert_close(penalized, torch.tensor([0.1, 1.0, -2.0, 1.5, 0.0]))
    assert torch.equal(LOGITS, before)


def test_presence_and_frequency_count_what_was_generated_and_a_bias_is_added() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={4: 3.0})
    penalized = penalize(LOGITS, sampling, [0, 0, 1, 3, 3], [1, 3, 3])
    torch.testing.assert_close(penalized, torch.tensor([0.1, 1.25, -1.0, 0.5, 3.0]))


def test_scores_are_of_the_model_s_own_distribution_with_the_likeliest_ids() -> None:
    one, other = scores(torch.stack([LOGITS, -LOGITS]), [3, 1], [2, 0])
    wanted = LOGITS.log_softmax(-1)
    assert one.log_probability == pytest.approx(float(wanted[3]))
    assert [place for place, _ in one.top] == [1, 3]
    assert one.top[1][1] == pytest.approx(float(wanted[3]))
    assert other.top == ()
    assert other.log_probability == pytest.approx(float((-LOGITS).log_softmax(-1)[1]))
