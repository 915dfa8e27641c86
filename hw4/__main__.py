"""``python -m hw4``: the same as the command ``hw4``."""

from hw4.cli import main

if __name__ == "__main__":
    main()
