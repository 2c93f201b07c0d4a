"""`python -m slrctl`, for where the command is not on the path."""

from slrctl.cli import main

if __name__ == "__main__":
    main()
