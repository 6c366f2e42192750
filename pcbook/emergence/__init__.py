"""A recurrent network, trained to save energy, predicts."""
