"""Helpers without a subject of their own: files, hashing, text, HTTP, and importing TensorFlow quietly."""
