"""What products on a grid share: composing, shards, estimates, writers and thumbnails."""
