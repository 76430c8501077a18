"""Cloud runs: start them from Pub/Sub messages, launch them on Dataflow, and track their status.

The Cloud Run functions load this package at every cold start, so only `template`, which runs in
the launcher of the Flex Template, may import Beam, rasterio or numpy.
"""
