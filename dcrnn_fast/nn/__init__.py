"""The fast modules: the model, its layers, losses and optimiser, and prepared inference. They compute on a backend of the operators."""
