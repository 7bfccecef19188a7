"""Which compute, deployment and place for a workload, with the reasons and what was rejected."""
