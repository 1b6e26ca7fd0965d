"""Prepare a corpus on the nodes of a Ray cluster, with the options of tools/prepare.py.

python launch/ray_prepare.py --source zhwiki --input DUMP.xml.bz2 --tokenizer tokenizer/zh_32k/tokenizer.model \
    --output shards/zhwiki [--address HOST:PORT] [--workers 64]
"""

from megadec.common.errors import run_main
from megadec.ray.prepare import main

if __name__ == "__main__":
    run_main(main)
