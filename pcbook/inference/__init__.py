"""Inference learning, its price, and what one network can be asked."""
