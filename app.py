"""`python app.py`: see audio_diffusion_pytorch/commands/app.py."""

from audio_diffusion_pytorch.commands.app import cli

if __name__ == "__main__":
    cli()
