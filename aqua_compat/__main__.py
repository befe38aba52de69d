"""`python -m aqua_compat` is the command `aqua-registry`."""

from aqua_compat.cli.start import main

main()
