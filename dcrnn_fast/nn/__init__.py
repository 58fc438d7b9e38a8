"""The fast modules: the model, its layers, its losses and its optimiser, on a backend."""
