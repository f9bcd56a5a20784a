"""A script for the original system; tests/compat/test_api.py runs it in this folder."""

import torch

from audio_diffusion_pytorch import (
    AudioDiffusionModel,
    KarrasSampler,
    KarrasSamplerReverse,
    KarrasSchedule,
    KDistribution,
    NormalizedEncodec,
    PitchTracker,
)

device = torch.device("cpu")
golden = torch.load("tiny_golden.pt")

diffusion_sigma_distribution = KDistribution(sigma_min=0.001, sigma_max=5, rho=9.0)
diffusion_schedule = KarrasSchedule(sigma_min=0.001, sigma_max=5, rho=9.0)
diffusion_sampler = KarrasSampler()
diffusion_sampler_reverse = KarrasSamplerReverse()
num_steps = 8

source = AudioDiffusionModel(
    **golden["arch"], diffusion_sigma_distribution=diffusion_sigma_distribution
)
target = AudioDiffusionModel(
    **golden["arch"], diffusion_sigma_distribution=diffusion_sigma_distribution
)
checkpoint = torch.load("tiny_reference.ckpt", map_location=device)["state_dict"]
averaged, raw = (
    {key[len(prefix) :]: value for key, value in checkpoint.items() if key.startswith(prefix)}
    for prefix in ("model_ema.ema_model.", "model.")
)
source.load_state_dict(averaged, strict=True)
target.load_state_dict(averaged, strict=True)
source.to(device).eval()
target.to(device).eval()
mean = torch.load("tiny_mean.pt", map_location=device).unsqueeze(1)
std = torch.load("tiny_std.pt", map_location=device).unsqueeze(1)

encodec = NormalizedEncodec("tiny_reference.ckpt", device=device)
waveform = golden["wav"].to(device)
embeddings = encodec.encode_latent(waveform, mean, std)
noisy_embeddings = source.sample(
    noise=embeddings,
    sampler=diffusion_sampler_reverse,
    sigma_schedule=diffusion_schedule,
    num_steps=num_steps,
)
generated_embeddings = target.sample(
    noise=noisy_embeddings,
    sampler=diffusion_sampler,
    sigma_schedule=diffusion_schedule,
    num_steps=num_steps,
)
generated = encodec.decode_latent(generated_embeddings, mean, std)

pitch_tracker = PitchTracker()
tracking_output = pitch_tracker.cals_pitch_metric(
    waveform[:1],
    torch.tensor(generated[0].cpu().numpy()),
    "both",
    plot=True,
    pair=("Input", "Generated"),
)
dtw, jaccard = tracking_output[0][0]

source.load_state_dict(raw, strict=True)
raw_embeddings = source.sample(
    noise=embeddings,
    sampler=diffusion_sampler_reverse,
    sigma_schedule=diffusion_schedule,
    num_steps=num_steps,
)
