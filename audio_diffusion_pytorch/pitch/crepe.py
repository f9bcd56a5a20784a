"""Track pitch with CREPE (Kim et al. 2018, arXiv 1802.06182), independent of all training."""

import math

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.notes import F0Track
from audio_diffusion_pytorch.pitch.tracker import check_clips
from audio_diffusion_pytorch.utils.devices import exact_device

RATE = 16000  # Hz, of the network
HOP = 160  # samples between frames: 10 ms
VOICED = 0.4  # periodicity above which a frame has a pitch
LOWEST = 50.0  # Hz; the highest pitch of the network is 2006 Hz
CENTS_PER_BIN = 20
_FIRST_BIN = 1997.3794084376191  # cents above 10 Hz
_STEPS = 12  # bins by which the pitch moves less than, from frame to frame, as in torchcrepe
_NEAR = 4  # bins on each side of the decoded one
_BATCH = 512  # frames


@torch.inference_mode()
def track_crepe(wavs: Tensor, sample_rate: int) -> list[F0Track]:
    """Track the pitch of clips with the "tiny" network and Viterbi decoding.

    Args:
        wavs: mono clips [B, T].
        sample_rate: rate of the clips in Hz.

    Returns:
        The track of each clip: 1 + T // hop frames, 10 ms apart.

    Raises:
        InputError: torchcrepe is not installed, or the audio is empty, not [B, T] or not finite.
    """
    check_clips(wavs, sample_rate)
    try:
        import torchcrepe
    except ImportError as error:
        raise InputError(
            'tracker=crepe needs torchcrepe: pip install torchcrepe, or pip install ".[judge]"'
        ) from error
    device = exact_device(wavs.device)
    tracks = []
    for wav in resample(wavs.float(), sample_rate, RATE):
        parts = torchcrepe.preprocess(wav[None], RATE, HOP, _BATCH, str(device))
        salience = torch.cat([torchcrepe.infer(part, "tiny", device) for part in parts]).cpu()
        tracks.append(_decode(salience))
    return tracks


def _decode(salience: Tensor) -> F0Track:
    """Decode the salience [F, 360] of pitches 20 cents apart.

    Viterbi decoding finds the bins; the pitch is the mean of nine bins, weighted by salience (Kim
    et al. 2018, eq. 2). The decoder of torchcrepe adds noise of 20 cents to the bins, and noise in
    pauses draws its path to the highest bin, whose transitions it scales up; impossible bins beyond
    both ends prevent this here.
    """
    import librosa

    lowest = math.ceil((1200 * math.log2(LOWEST / 10) - _FIRST_BIN) / CENTS_PER_BIN)
    allowed = salience.masked_fill(torch.arange(salience.shape[1]) < lowest, -math.inf)
    allowed = torch.nn.functional.pad(allowed, (_STEPS, _STEPS), value=-math.inf)
    bin_of = torch.arange(allowed.shape[1])
    transition = (_STEPS - (bin_of[:, None] - bin_of).abs()).clamp_min(0).double()
    transition = transition / transition.sum(1, keepdim=True)
    path = librosa.sequence.viterbi(allowed.softmax(1).T.numpy(), transition.numpy())
    bins = torch.from_numpy(path.astype("int64")) - _STEPS
    near = bins[:, None] + torch.arange(-_NEAR, _NEAR + 1)
    weights = salience.gather(1, near.clamp(0, salience.shape[1] - 1)).double()
    cents = (weights * near * CENTS_PER_BIN).sum(1) / weights.sum(1) + _FIRST_BIN
    times = torch.arange(len(bins)).double() * (HOP / RATE)
    voiced = salience.gather(1, bins[:, None])[:, 0] > VOICED
    return F0Track(times.numpy(), (10 * 2 ** (cents / 1200)).numpy(), voiced.numpy())
