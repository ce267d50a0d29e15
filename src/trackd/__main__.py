"""`python -m trackd` is the `trackd` command, for where it is not on PATH."""

from trackd.cli.main import main

if __name__ == "__main__":
    main()
