"""Token batches and a decoder in, trained weights out: the loop, the step, ZeRO, evaluation, checkpoints, metrics."""
