"""`python evaluate.py`: see audio_diffusion_pytorch/commands/evaluate.py."""

from audio_diffusion_pytorch.commands.evaluate import cli

if __name__ == "__main__":
    cli()
