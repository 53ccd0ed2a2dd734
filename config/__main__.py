"""`python -m config`: check, show, docs and up."""

from config.cli import config_main

if __name__ == "__main__":
    config_main()
