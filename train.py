"""`python train.py`: see audio_diffusion_pytorch/commands/train.py."""

from audio_diffusion_pytorch.commands.train import cli

if __name__ == "__main__":
    cli()
