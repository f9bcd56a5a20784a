"""`python -m audio_diffusion_pytorch VERB ...`: see commands/main.py."""

from audio_diffusion_pytorch.commands.main import main

if __name__ == "__main__":
    main()
