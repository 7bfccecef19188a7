"""A Llama from its files to its tokens: configuration, model, counts, weights, tokenizer, generation."""
