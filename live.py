"""`python live.py`: see audio_diffusion_pytorch/commands/live.py."""

from audio_diffusion_pytorch.commands.live import cli

if __name__ == "__main__":
    cli()
