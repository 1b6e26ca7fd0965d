"""`python -m megadec VERB` and `deepspeed --module megadec VERB`: the console script without its path."""

from megadec.cli import main

if __name__ == "__main__":
    main()
