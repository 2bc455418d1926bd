"""One small file per subcommand of ``hccnet``."""
