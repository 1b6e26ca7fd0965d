"""The command serve: options in, answers over HTTP until a signal."""

from collections.abc import Sequence

from megadec.common.config import parse
from megadec.serve.options import ServeOptions


def main(argv: Sequence[str]) -> None:
    """Answer until a signal; the address is on standard error."""
    options = parse(ServeOptions, argv, description="Answer over HTTP from an exported model.")
    from megadec.serve.server import serve  # needs the extra `serve`, which --help and a wrong option do not

    serve(options)
