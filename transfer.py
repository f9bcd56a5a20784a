"""`python transfer.py`: see audio_diffusion_pytorch/commands/transfer.py."""

from audio_diffusion_pytorch.commands.transfer import cli

if __name__ == "__main__":
    cli()
