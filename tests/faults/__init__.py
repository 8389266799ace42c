"""The fault matrix: a deployment under load, hurt in every way it is to survive, and every message accounted for."""
