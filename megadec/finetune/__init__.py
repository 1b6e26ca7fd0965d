"""Checkpoint and labelled texts to a task model: examples, what is trained, the run, and the finished classifier."""
