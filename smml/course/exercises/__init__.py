"""Exercises, one file a notebook: judges with hints, and wrong answers that prove each judge."""
