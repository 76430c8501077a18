"""Files from elsewhere: byte ranges and whole downloads, retried, signed, and polite to their hosts."""
