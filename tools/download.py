"""Fetch a public dump: resumed where it broke off, compared with its checksum.

python tools/download.py --dump zhwiki --output dumps
python tools/download.py --dump https://e.org/file.zip --sha256 HEX --output dumps
"""

from megadec.common.errors import run_main
from megadec.corpus.download import main

if __name__ == "__main__":
    run_main(main)
