"""Play live: from a microphone or a file to a loudspeaker or a file, with constant delay."""
