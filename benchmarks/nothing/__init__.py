"""A product whose tasks do nothing: what is left is the cost of the graph, the plan and the report."""
