"""`python -m aqua_compat` is the command `aqua-registry`."""

from aqua_compat.cli.main import main

main()
