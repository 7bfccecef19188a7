"""The same Llama under PyTorch's own strategies, each as a `Strategy`: what ours are held and timed against."""
