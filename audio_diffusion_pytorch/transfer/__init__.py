"""Transfer of audio files through a bridge."""
