"""Mortal computation: energy, creatures, substrates."""
