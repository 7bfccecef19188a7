"""Spot capacity: pools, a replayed market, allocation strategies, runs that are interrupted."""
