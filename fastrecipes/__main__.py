"""`python -m fastrecipes`, the same as the command `fastrecipes`."""

from fastrecipes.cli.app import main

if __name__ == "__main__":
    main()
