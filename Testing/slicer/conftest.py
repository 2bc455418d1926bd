"""These tests run inside Slicer (``make test-slicer``); pytest has no Slicer and leaves them alone."""

collect_ignore_glob = ["*.py"]
