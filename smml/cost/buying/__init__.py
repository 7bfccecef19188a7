"""Ways to pay for the same machine: on demand, spot, commitments, blocks, one's own; and where one overtakes another."""
