"""PLAN: what a training will hold, take and cost before it runs: memory, step time, layout search, goodput; pure."""
