"""`python scripts/fit_schedule.py`: see audio_diffusion_pytorch/commands/fit_schedule.py."""

from audio_diffusion_pytorch.commands.fit_schedule import main

if __name__ == "__main__":
    main()
