"""`python -m HCCNetLib` is `hccnet`."""

from HCCNetLib.commands.main import entry_point

entry_point()
