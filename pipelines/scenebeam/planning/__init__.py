"""Search, plan, freeze, and decide what is made again."""
