"""Chips: images and labels at places of one's own, packed for training."""
