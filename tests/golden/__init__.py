"""What releases have written: see `make.py`."""
