"""`python -m calotype` is the command line."""

from calotype.cli.main import main

if __name__ == "__main__":
    main()
