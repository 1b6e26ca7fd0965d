"""Answer over HTTP from an exported model.

python launch/serve.py --model exports/NAME-hf [--classifier exports/NAME-classifier] [--port 8000] [--limits.X value]
"""

from megadec.common.errors import run_main
from megadec.serve.command import main

if __name__ == "__main__":
    run_main(main)
