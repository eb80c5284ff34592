"""`python -m flowstack` is the command `flowstack`."""

from flowstack.cli import main

if __name__ == "__main__":
    main()
