"""Shards -> token batches: folders, index (open a data set), windows (what a row holds), order, stream, prefetch."""
