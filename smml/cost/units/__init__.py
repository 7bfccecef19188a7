"""USD per token, run and hour used, counted over the whole job."""
