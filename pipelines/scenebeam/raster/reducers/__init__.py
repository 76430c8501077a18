"""Methods of composites: one module each, named as in requests, with its class as METHOD."""
