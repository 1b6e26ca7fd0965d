"""Shards -> token batches: index (open a data set), windows (what a row holds), order, stream, batch, prefetch."""
