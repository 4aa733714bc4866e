"""``python -m phystrain.cli``."""

from phystrain.cli import main

main()
