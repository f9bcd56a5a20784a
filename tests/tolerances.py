"""Tolerances between numbers that are equal on paper; each comment is the reason.

The summation order of float32 products depends on the processor's vector width, the number of
threads, the batch size and the row of the batch, so only equal calls on equal shapes give equal
bits.
"""

# A few float32 operations on numbers up to 1, in another order: 16 units of the last place, 6e-8.
ROUNDING = 1e-6
# Tens of layers, each a sum of up to some thousand products: five times sqrt(1000) x 6e-8 = 2e-6.
NETWORK = 1e-5
# Two networks along a solver's steps, and the codec's exponential of log-mels: AVX-512 gave 3e-5.
BRIDGED = 5e-4
DOUBLE = 1e-9  # float64 (1e-16) after some hundred operations and a power
# Three steps of 16-bit sound, 3e-5 each: rounding, and the errors of a reader and a resampler.
PCM_16 = 1e-4
# float16 has 11 bits: half a step of a log-mel between 8 and 16 is 0.004, plus later operations.
HALF = 0.02
HALF_MODEL = 0.05  # a network with float16 weights, 5e-4 of each, through its layers
TWO_DECIMALS = 0.005  # a table with two decimals shows both as equal
