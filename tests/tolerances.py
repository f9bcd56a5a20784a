"""How far apart numbers may lie that are equal on paper; each name is the reason.

The order in which a sum of float32 products is taken depends on the processor's vector width, the number of threads,
the batch size and the row of the batch, so that nothing but equal calls on equal shapes gives equal bits.
"""

ROUNDING = 1e-6  # a few float32 operations on numbers up to 1, in another order: 16 units of the last place, 6e-8
NETWORK = 1e-5  # tens of layers, each a sum of up to some thousand products: sqrt(1000) x 6e-8 = 2e-6, five times that
BRIDGED = 5e-4  # two networks along a solver's steps, and the codec's exponential of log-mels: 3e-5 was seen on AVX-512
DOUBLE = 1e-9  # float64 (1e-16) after some hundred operations and a power
PCM_16 = 1e-4  # a step of 16-bit sound is 3e-5; three of them: rounding, and a reader's and a resampler's own
HALF = 0.02  # float16 keeps 11 bits: half a step of a log-mel between 8 and 16 is 0.004, with what is computed from it
HALF_MODEL = 0.05  # a network whose weights are kept in float16, 5e-4 of each, through its layers
TWO_DECIMALS = 0.005  # what a table with two decimals, as the published ones, shows as equal
