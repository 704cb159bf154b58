"""A made-up voice: syllables, the mouth that goes with them, and their sound.

Additive synthesis: harmonics of a gliding pitch, weighted by the resonances (formants) of the vowel
that is being said. It says nothing; it only moves in time with the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SOUND_RATE_HZ = 48_000
_LEVEL = 0.09
"""Root mean square of the loud parts: -21 dB of full scale, the level of quiet speech."""
# Resonances in Hz and how far the mouth opens: ah, eh, ee, oh, oo.
_VOWELS = (
    ((800.0, 1200.0, 2500.0), 1.0),
    ((550.0, 1770.0, 2490.0), 0.75),
    ((300.0, 2250.0, 3000.0), 0.45),
    ((500.0, 900.0, 2400.0), 0.7),
    ((330.0, 800.0, 2250.0), 0.4),
)
_HIGHEST_HZ = 4200.0


@dataclass(frozen=True)
class Speech:
    """Syllables in short phrases with rests between them; the same for the same seed."""

    seed: int
    seconds: float

    @cached_property
    def _syllables(self) -> Array:
        """Rows of start, length (seconds), strength (0..1), vowel."""
        random = np.random.default_rng([self.seed, 11])
        rows, t = [], 0.12
        while t < self.seconds:
            for _ in range(int(random.integers(3, 8))):
                length = random.uniform(0.13, 0.26)
                rows.append((t, length, random.uniform(0.6, 1.0), random.integers(len(_VOWELS))))
                t += length * random.uniform(0.92, 1.1)
            t += random.uniform(0.18, 0.45)
        return np.array(rows).reshape(-1, 4)  # none at all before the first breath is over

    def _bells(self, t: Array) -> Array:
        """How much of each syllable sounds at each time, ``[S, N]``."""
        start, length, strength, _ = self._syllables.T[:, :, None]
        place = (t - start) / length
        return np.where(
            (place > 0) & (place < 1), strength * np.sin(np.pi * place.clip(0, 1)) ** 1.2, 0.0
        )

    def opening(self, t: float) -> float:
        """How far the mouth is open at ``t`` seconds, 0..1."""
        # The jaw is slower than the voice: the mean over an eighth of a second.
        times = t + np.linspace(-0.06, 0.06, 7)
        wide = np.array([_VOWELS[int(v)][1] for v in self._syllables[:, 3]])
        return float((self._bells(times) * wide[:, None]).sum(0).clip(0, 1).mean())

    def sound(self) -> NDArray[np.float32]:
        """The whole sound, mono at :data:`SOUND_RATE_HZ`, ``[N]`` in [-1, 1]."""
        random = np.random.default_rng([self.seed, 12])
        count = round(self.seconds * SOUND_RATE_HZ)
        if not len(self._syllables):
            return np.zeros(count, np.float32)
        t = np.arange(count) / SOUND_RATE_HZ
        # Everything but the phase changes slowly: computed at 500 Hz, then interpolated.
        slow = np.arange(0, self.seconds + 0.004, 0.002)
        bells = self._bells(slow)
        loud = bells.sum(0).clip(0, 1)
        base = random.uniform(105, 205)
        pitch = base * (1 + 0.10 * np.sin(2 * np.pi * 0.45 * slow + 1) + 0.06 * loud)
        phase = np.cumsum(np.interp(t, slow, pitch)) / SOUND_RATE_HZ
        formants = self._formants(bells, loud)
        voice = np.zeros(count)
        for number in range(1, int(_HIGHEST_HZ / base)):
            gain = _resonance(number * pitch, formants) / number**0.6
            voice += np.interp(t, slow, gain * loud) * np.sin(2 * np.pi * number * phase)
        breath = random.standard_normal(count) * np.interp(t, slow, loud * (1 - loud)) * 0.15
        voice = voice + np.convolve(breath, np.ones(6) / 6, "same") * voice.std()
        if count and voice.any():
            voice *= _LEVEL / np.sqrt((voice[np.interp(t, slow, loud) > 0.3] ** 2).mean() + 1e-12)
        return np.clip(voice, -0.9, 0.9).astype(np.float32)

    def _formants(self, bells: Array, loud: Array) -> Array:
        """Resonances over time ``[3, T]``, gliding from vowel to vowel."""
        own = np.array([_VOWELS[int(v)][0] for v in self._syllables[:, 3]])
        weight = bells + 1e-3
        return (own.T @ weight) / weight.sum(0) + 0.0 * loud


def _resonance(frequency_hz: Array, formants_hz: Array) -> Array:
    """Gain at a frequency over time ``[T]`` under three resonances ``[3, T]``."""
    widths = np.array([90.0, 120.0, 180.0])[:, None]
    levels = np.array([1.0, 0.55, 0.25])[:, None]
    return (levels / (1 + ((frequency_hz - formants_hz) / widths) ** 2)).sum(0) + 0.02
