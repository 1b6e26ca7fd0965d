"""Text from a language model, a single sequence after the other: what scripts and tools ask for."""

from collections.abc import Iterator

from megadec.common.tokenizer import Tokenizer
from megadec.decoding.batch import BatchDecoder
from megadec.decoding.continuation import Continuation
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import BatchedModel, LanguageModel, batched


def continue_alone(model: LanguageModel | BatchedModel, continuation: Continuation) -> Iterator[int]:
    """The ids of a continuation as they are drawn.

    Raises InputError, at once, for a prompt that does not fit, and what computing raises.
    """
    decoder = BatchDecoder(batched(model))
    decoder.add(continuation)
    return _ids(decoder, continuation)


def _ids(decoder: BatchDecoder, continuation: Continuation) -> Iterator[int]:
    given = 0
    try:
        while not continuation.done:
            decoder.step()
            yield from continuation.ids[given:]
            given = len(continuation.ids)
    finally:
        decoder.remove(continuation)
    if continuation.error is not None:
        raise continuation.error


def generate_text(
    model: LanguageModel | BatchedModel, tokenizer: Tokenizer, prompt: str, sampling: Sampling
) -> Iterator[str]:
    """The continuation of `prompt` as pieces of whole characters, without the prompt; ends before an end token.

    A last character that the token limit cut in the middle is left out. Raises InputError as `continue_alone` does, at
    once.
    """
    continuation = Continuation(tokenizer.prompt_ids(prompt), sampling, tokenizer.end_ids, tokenizer.vocabulary_size)
    stream = tokenizer.stream()
    return filter(None, map(stream.push, continue_alone(model, continuation)))
