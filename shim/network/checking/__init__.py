"""Proofs that a guest is where the network thinks it is."""
