"""The same Llama under libraries that people train with, each as a `Strategy` that is held to what it claims."""
