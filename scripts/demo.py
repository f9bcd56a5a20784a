"""`python scripts/demo.py`: see audio_diffusion_pytorch/commands/demo.py."""

from audio_diffusion_pytorch.commands.demo import main

if __name__ == "__main__":
    main()
