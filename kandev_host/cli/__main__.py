"""`python -m kandev_host.cli`."""

from kandev_host.cli import main

main()
