"""Shards -> token batches: folders, index (open a data set), windows (what a sequence holds), order, stream,
prefetch."""
