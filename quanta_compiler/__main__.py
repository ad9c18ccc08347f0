"""`python -m quanta_compiler` is the command `quanta`."""

from quanta_compiler.cli import main

if __name__ == "__main__":
    main()
