"""Hostile input: damaged messages and documents, and checks of what becomes of them."""
