"""`python scripts/render_dataset.py`: see audio_diffusion_pytorch/commands/render.py."""

from audio_diffusion_pytorch.commands.render import main

if __name__ == "__main__":
    main()
