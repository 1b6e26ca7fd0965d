"""Continuous batching: all running sequences advance together, one forward pass a step, and come and go between steps.

A step feeds each sequence that generates its last token, and reads parts of the prompts of those that came (Agrawal et
al., arXiv 2403.02310), so that a long prompt holds nobody up. A sequence is admitted when its prompt fits into the free
blocks of the cache. When blocks run out, the youngest sequence waits again and is computed anew later.

A text is the same however many others are computed beside it. Its prompt is read in parts whose borders depend on the
prompt alone, and what it had generated before it had to wait is fed again token by token: each row's same products.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from megadec.common.errors import ExportError, InputError
from megadec.decoding.continuation import Continuation
from megadec.decoding.sampling import Score, draw, penalize, scores
from megadec.decoding.session import BatchedModel, Feed

# A prompt is read in parts that end at multiples of it.
PART_TOKENS = 128
NO_NUMBERS = "the model's logits are not numbers: its weights, or the dtype that it is computed in, are wrong"
# Of prompts in one step: the time that others wait for their next token.
STEP_PROMPT_TOKENS = 512


class BatchDecoder:
    """Not for several threads.

    running: the most sequences that are computed together.
    """

    def __init__(self, model: BatchedModel, running: int = 64) -> None:
        self.model = model
        self._most = running
        self.waiting: deque[Continuation] = deque()
        self.running: list[Continuation] = []
        self.preempted = 0  # how often a sequence had to wait again

    def add(self, continuation: Continuation) -> None:
        """Take on a sequence. Raises InputError, before anything is computed, when it does not fit the model."""
        continuation.check(self.model.vocabulary_size, self.model.max_position_embeddings)
        self.waiting.append(continuation)

    def remove(self, continuation: Continuation) -> None:
        """Nothing more is wanted of this sequence, whether it has ended or not."""
        if continuation in self.running:
            self.running.remove(continuation)
            self.model.end(continuation.sequence)
        elif continuation in self.waiting:
            self.waiting.remove(continuation)

    def step(self) -> list[Continuation]:
        """Advance; the sequences to which something came: an id, the scores of a prompt, an end or an error."""
        self._admit()
        feeds = self._feeds()
        if not feeds:
            return []
        try:
            logits_RV = self.model.forward([feed for _, feed in feeds])
        except Exception as error:  # whatever a runtime raises: these sequences are lost, and those that wait go on
            for one, _ in feeds:
                self._fail(one, error)
            return [one for one, _ in feeds]
        advanced = self._read(feeds, logits_RV)
        for one in advanced:
            if one.done:
                self.remove(one)
        return advanced

    def fail(self, error: Exception) -> list[Continuation]:
        """Give up all sequences, as something is wrong with what computes them; those are returned."""
        given_up = [*self.running, *self.waiting]
        for one in given_up:
            self._fail(one, error)
        return given_up

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._most:
            one = self.waiting[0]
            # Of one that had to wait again, also what it had generated: it would else wait again at once.
            sequence = self.model.begin(one.prompt_ids, len(one.ids) + 1, share=not one.prompt_logprobs)
            if sequence is None:
                return
            one.sequence, one.fed_tokens = sequence, sequence.cached_tokens
            self.running.append(self.waiting.popleft())

    def _feeds(self) -> list[tuple[Continuation, Feed]]:
        """What each sequence is fed now; those that read prompts share STEP_PROMPT_TOKENS."""
        feeds: list[tuple[Continuation, Feed]] = []
        left = STEP_PROMPT_TOKENS
        for one in list(self.running):
            prompt = len(one.prompt_ids)
            if one not in self.running:  # it has to wait again
                continue
            if one.fed_tokens >= prompt and self._make_room(one):
                token = one.ids[one.fed_tokens - prompt]
                is_last = one.fed_tokens == prompt + len(one.ids) - 1
                feeds.append((one, Feed(one.sequence, [token], int(is_last))))
            elif one.fed_tokens < prompt and left > 0:
                end = min(one.fed_tokens + PART_TOKENS - one.fed_tokens % PART_TOKENS, prompt)
                ids = one.prompt_ids[one.fed_tokens : end]
                left -= len(ids)
                wanted = len(ids) if one.prompt_logprobs else int(end == prompt and not one.ids)
                feeds.append((one, Feed(one.sequence, ids, wanted)))
        return [(one, feed) for one, feed in feeds if one in self.running]

    def _make_room(self, one: Continuation) -> bool:
        """Room for a token; the youngest sequences wait again where there is none. False when it is `one` itself."""
        while not self.model.reserve(one.sequence, 1):
            youngest = self.running.pop()
            self.model.end(youngest.sequence)
            youngest.sequence, youngest.fed_tokens = None, 0
            youngest.prompt_scores.clear()
            self.waiting.appendleft(youngest)
            self.preempted += 1
            if youngest is one:
                return False
        return True

    def _read(self, feeds: Sequence[tuple[Continuation, Feed]], logits_RV: Tensor) -> list[Continuation]:
        """Give each sequence what its logits say."""
        row, advanced, drawing, rows = 0, [], [], []
        for one, feed in feeds:
            own_SV = logits_RV[row : row + feed.wanted]
            row += feed.wanted
            first = one.fed_tokens
            one.fed_tokens += len(feed.ids)
            if not feed.wanted:
                continue
            if not bool(own_SV.amax(-1).isfinite().all()):  # NaN is the maximum of what holds it
                self._fail(one, ExportError(NO_NUMBERS))
                advanced.append(one)
                continue
            if one.prompt_logprobs and first < len(one.prompt_ids):
                known = one.prompt_ids[first + 1 : one.fed_tokens + 1]
                tops = [one.logprobs or 0] * len(known)
                one.prompt_scores += scores(own_SV[: len(known)], known, tops)
            if one.fed_tokens < len(one.prompt_ids) + len(one.ids):
                continue
            advanced.append(one)
            if one.sampling.max_new_tokens == 0:
                one.finished = "length"
                continue
            if one.grammar is not None:
                try:
                    one.grammar.allowed()  # a grammar keeps what it found; _changed takes it
                except InputError as error:
                    self._fail(one, error)
                    continue
            drawing.append(one)
            rows.append(row - 1)
        if drawing:
            # One vocabulary a model: the rows that no piece stands behind are cut for all.
            self._draw(drawing, logits_RV[rows][:, : drawing[0].drawn_ids])
        return advanced

    def _draw(self, drawing: Sequence[Continuation], logits_RV: Tensor) -> None:
        changed_RV = logits_RV
        for row, changed_V in _changed(drawing, logits_RV):
            changed_RV = logits_RV.clone() if changed_RV is logits_RV else changed_RV
            changed_RV[row] = changed_V
        ids = draw(changed_RV, [one.sampling for one in drawing], [one.generator for one in drawing])
        scored = [row for row, one in enumerate(drawing) if one.logprobs is not None]
        tops = [drawing[row].logprobs or 0 for row in scored]
        found: dict[int, Score] = dict(
            zip(scored, scores(logits_RV[scored], [ids[row] for row in scored], tops), strict=True)
        )
        for row, (one, token_id) in enumerate(zip(drawing, ids, strict=True)):
            one.take(token_id, found.get(row))

    def _fail(self, one: Continuation, error: Exception) -> None:
        one.error = error
        self.remove(one)


def _changed(drawing: Sequence[Continuation], logits_RV: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The rows that penalties, a bias or a grammar change."""
    for row, one in enumerate(drawing):
        how = one.sampling
        plain = how.repetition_penalty == 1 and not how.logit_bias
        if plain and not how.presence_penalty and not how.frequency_penalty and one.grammar is None:
            continue
        changed_V = penalize(logits_RV[row], how, [*one.prompt_ids, *one.ids], one.ids)
        if one.grammar is not None:
            allowed_V = one.grammar.allowed()[: changed_V.shape[0]].to(changed_V.device)
            changed_V = changed_V.masked_fill(~allowed_V, -torch.inf)
        yield row, changed_V
