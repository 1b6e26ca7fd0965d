"""Who runs the steps: processes of this machine; `megadec/ray/prepare.py` has a cluster do the same."""
