"""`python -m yatsude.cli`: the same as the command `yatsude`."""

from yatsude.cli.main import main

main()
