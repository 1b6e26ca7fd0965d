"""The Triton kernel of `cross_entropy`: one program a token.

In: pointers to a chunk of logits, targets and weights. Out: nats, and the gradient where the logits stood. A row of
65,536 bfloat16 logits is 128 KiB: it is read from memory once and from the second level of cache the second time. A
file of its own, imported at the first launch, because triton is an extra and takes long to import; without it the
module is empty.
"""

from __future__ import annotations

try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
except ImportError:
    triton = None

if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def losses(  # type: ignore[no-untyped-def]
        logits,
        targets,
        weights,
        nats,
        row_stride,
        vocabulary_size,
        label_smoothing,
        z_loss,
        SMOOTHED: tl.constexpr,
        GRADIENT: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        token = tl.program_id(0).to(tl.int64)
        row = logits + token * row_stride
        target = tl.load(targets + token)
        weight = tl.load(weights + token).to(tl.float32)
        target_logit = tl.load(row + target).to(tl.float32)
        columns = tl.arange(0, BLOCK)
        # Once over the row with a running largest value and sum (Milakov and Gimelshein, arXiv 1805.02867).
        top = float("-inf")
        total = 0.0
        logits_sum = 0.0
        for start in range(0, vocabulary_size, BLOCK):
            inside = start + columns < vocabulary_size
            values = tl.load(row + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(top, tl.max(values, axis=0))
            total = total * tl.exp(top - higher) + tl.sum(tl.exp(values - higher), axis=0)
            top = higher
            if SMOOTHED:
                logits_sum += tl.sum(tl.where(inside, values, 0.0), axis=0)
        log_total = tl.log(total) + top
        loss = log_total - target_logit + z_loss * log_total * log_total
        if SMOOTHED:
            loss += label_smoothing * (target_logit - logits_sum / vocabulary_size)
        tl.store(nats + token, loss)
        if GRADIENT:
            factor = weight * (1.0 + 2.0 * z_loss * log_total) / total
            floor = weight * label_smoothing / vocabulary_size
            at_target = weight * (1.0 - label_smoothing)
            for start in range(0, vocabulary_size, BLOCK):
                inside = start + columns < vocabulary_size
                values = tl.load(row + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
                slope = tl.exp(values - top) * factor - floor
                slope = tl.where(start + columns == target, slope - at_target, slope)
                tl.store(row + start + columns, slope.to(logits.dtype.element_ty), mask=inside)
