"""The plumbing: files, loops, numbers. Knows no system by name (see tests/test_arrows.py)."""
