"""Powers of 2 and logarithms that can be worked out for a whole vector at once."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part
from slrctl.core.model.fast.kernels.vectors import rounded, whole_power_of_2, zero_below

_LEAST_POWER = np.float32(-126)
# The series of 2^x: (ln 2)^n / n!
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(np.log(2) ** n / factorial)
    for n, factorial in zip(range(1, 7), (1, 2, 6, 24, 120, 720), strict=True)
)
_LN_2 = np.float32(np.log(2))
_LARGEST = np.finfo(np.float32).max
_ROOT_2 = np.float32(np.sqrt(2))


@part
def power_of_2(x):
    """Accurate to 2.1e-7; 0 below what float32 holds at full precision."""
    whole = np.floor(x + np.float32(0.5))
    power = _series(x - whole)
    power *= np.int32((np.int32(whole) + 127) << 23).view(np.float32)
    return np.float32(0) if x < _LEAST_POWER else power


@part
def powers_of_2(x):
    """The same of a vector."""
    whole = rounded(x)
    power = _series(x - whole) * whole_power_of_2(whole)
    return zero_below(power, _LEAST_POWER, x)


@part
def _series(rest):
    """2 to a number, or a vector, between -1/2 and 1/2."""
    power = _C6 * rest + _C5
    power = power * rest + _C4
    power = power * rest + _C3
    power = power * rest + _C2
    power = power * rest + _C1
    return power * rest + np.float32(1)


@part
def logarithm(x):
    """The natural logarithm of a normal number above 0, to 2e-7 of it or of 1.

    Of m * 2^n with m about 1, by the series of the inverse hyperbolic tangent of (m - 1) / (m + 1).
    Infinity and NaN stay what they are.
    """
    bits = np.float32(x).view(np.int32)
    exponent = (bits >> 23) - 127
    mantissa = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)
    is_large = mantissa > _ROOT_2
    mantissa = mantissa * np.float32(0.5) if is_large else mantissa
    exponent = exponent + 1 if is_large else exponent
    s = (mantissa - np.float32(1)) / (mantissa + np.float32(1))
    square = s * s
    series = np.float32(2 / 9) * square + np.float32(2 / 7)
    series = series * square + np.float32(2 / 5)
    series = series * square + np.float32(2 / 3)
    series = series * square + np.float32(2)
    result = series * s + np.float32(exponent) * _LN_2
    return result if x <= _LARGEST else x
