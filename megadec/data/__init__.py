"""Shards -> token batches: shard_folders, index (open a set), windows (what a row holds), order, stream, batch, share."""
