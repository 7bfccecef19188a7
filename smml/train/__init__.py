"""Training on one device: text → tokenised shards → batches → steps → checkpoints, log and model folder."""
