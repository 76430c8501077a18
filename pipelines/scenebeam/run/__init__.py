"""What a run is: its plan, its engine, its status and its report."""
