"""Execution: the driver, the Beam graph, the runners, and what a run costs."""
