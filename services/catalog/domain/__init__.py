"""The rules of a catalogue: what a product is, what stock can be promised, what a file of products says."""
