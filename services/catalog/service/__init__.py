"""The use cases of a catalogue: what visitors see, what managers change, what orders reserve."""
