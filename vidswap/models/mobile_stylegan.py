"""MobileStyleGAN in PyTorch (Belousov, arXiv 2104.04767), differentiable in latents and weights.

A StyleGAN2-like generator whose convolutions are separable and whose upsampling is an inverse Haar
transform. ``w`` is a latent of W ``[B, 512]``, ``w_plus`` one of W+ ``[B, 23, 512]``: one style for
the first convolution, three a stage (up, conv1, conv2) for seven stages, one for the output.

On a CPU one image at a time is fastest (the working set stays in cache), on a GPU batches are.
"""

from __future__ import annotations

import copy
import math
import threading
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidswap.errors import WeightsError
from vidswap.models import TILES, channels_last
from vidswap.models.rgb_head import RgbHead

N_STYLES = 23
W_DIM = 512
RESOLUTION = 1024
_STAGES = 7
_HEAD_STAGE = {128: 4, 256: 5}
_HEAD_CHANNELS = {128: 256, 256: 128}
_SEED = 20240229
_WINDOW_STAGE = 5
"""The features before this stage have one pixel a tile. It and those after it see only the window, and the
one before it a little more."""
_HALO = 2
"""Tiles around a window that its zero padding spoils: 6 pixels of 512 at most, and 2 pixels of 128."""

_RGB_ROWS = 32
_ONE_PICTURE = threading.Lock()
"""Held while a whole picture is drawn: two at a time on two threads would add up their largest moments, which
a long clip meets sooner or later and a short one does not."""

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in tiles."""


def inverse_haar(x: Tensor, style: Tensor | None = None) -> Tensor:
    """Inverse Haar transform: ``[B, 4C, H, W]`` to ``[B, C, 2H, 2W]``, both best in channels-last memory.

    The first quarter of the channels is the low band, the rest is ``[C, 3]`` of the bands lh, hl, hh.

    :param style: ``[B, 4C]``, by which the channels are scaled first.
    """
    # Written row by row in the order of the memory: as a pixel shuffle it takes three times as long.
    x = x.permute(0, 2, 3, 1)
    x = 0.5 * x if style is None else x * (0.5 * style)[:, None, None]
    batch, height, width, channels = x.shape
    count = channels // 4
    low = x[..., :count]
    lh, hl, hh = x[..., count:].reshape(batch, height, width, count, 3).unbind(4)
    plus, minus = low + lh, low - lh
    plus2, minus2 = hl + hh, hl - hh
    if not torch.is_grad_enabled():
        image = x.new_empty(batch, height, 2, width, 2, count)
        for row, (one, two) in enumerate(((plus, plus2), (minus, minus2))):
            torch.add(one, two, out=image[:, :, row, :, 0])
            torch.sub(one, two, out=image[:, :, row, :, 1])
        return image.view(batch, 2 * height, 2 * width, count).permute(0, 3, 1, 2)
    rows = (batch, height, 1, 2 * width, count)
    upper = torch.stack((plus + plus2, plus - plus2), dim=3).view(rows)
    lower = torch.stack((minus + minus2, minus - minus2), dim=3).view(rows)
    image = torch.cat((upper, lower), dim=2).view(batch, 2 * height, 2 * width, count)
    return image.permute(0, 3, 1, 2)


def _channel_scale(x: Tensor, style: Tensor) -> Tensor:
    return x * style[:, :, None, None]


class _Convolution(nn.Module):
    """Style, optional depthwise 3x3, dense convolution, noise, bias, leaky ReLU."""

    noise: Tensor

    def __init__(self, entering: int, leaving: int, size: int, *, separable: bool) -> None:
        super().__init__()
        self.depthwise = nn.Parameter(torch.empty(entering, 1, 3, 3)) if separable else None
        self.weight = nn.Parameter(torch.empty(leaving, entering, *((1, 1) if separable else (3, 3))))
        self.bias = nn.Parameter(torch.empty(leaving))
        self.register_buffer("noise", torch.empty(size, size))

    def forward(self, x: Tensor, style: Tensor, window: Window | None = None) -> Tensor:
        noise = self.noise
        if window is not None:
            left, top, right, bottom = (edge * (noise.shape[0] // TILES) for edge in window)
            noise = noise[top:bottom, left:right]
        if self.depthwise is None:
            x = functional.conv2d(_channel_scale(x, style), self.weight, self.bias, padding=1)
            return functional.leaky_relu_(x + noise, 0.2)
        kernel: Tensor = self.depthwise
        if x.shape[0] == 1:  # one image: scaling the kernel is cheaper than scaling the picture
            kernel = kernel * style[0, :, None, None, None]
        else:
            x = _channel_scale(x, style)
        x = functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
        # In channels-last memory a dense 1x1 convolution is one matrix product, without any copy. With a
        # bias its result is a view: changed in place, autograd would copy all of it several times.
        x = functional.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
        x = x + noise[:, :, None] if torch.is_grad_enabled() else x.add_(noise[:, :, None])
        return functional.leaky_relu_(x, 0.2).permute(0, 3, 1, 2)


class MobileStyleGAN(nn.Module):
    """The packaged FFHQ generator.

    :meth:`synthesize` gives images in about [-1, 1]; ``size`` 1024 runs the whole network, 128 and 256
    stop early and decode the features with a small learned head (see :mod:`vidswap.models.rgb_head`).
    """

    name = "mobilestylegan"
    n_styles = N_STYLES
    w_dim = W_DIM
    resolution = RESOLUTION
    w_avg: Tensor
    w_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(W_DIM, W_DIM) for _ in range(8))
        self.const = nn.Parameter(torch.empty(1, 512, 4, 4))
        widths = [512, 512, 512, 512, 512, 256, 128, 64]
        style_sizes = [512]
        self.convs = nn.ModuleDict({"0": _Convolution(512, 512, 4, separable=False)})
        for stage in range(_STAGES):
            entering, leaving, size = widths[stage], widths[stage + 1], 8 << stage
            first = 3 * stage + 2
            self.convs[str(first)] = _Convolution(entering // 4, leaving, size, separable=True)
            self.convs[str(first + 1)] = _Convolution(leaving, leaving, size, separable=True)
            style_sizes += [entering, entering // 4, leaving]
        self.style_sizes = (*style_sizes, 64)
        self.styles = nn.ModuleList(nn.Linear(W_DIM, size) for size in self.style_sizes)
        self.to_img = nn.Conv2d(64, 12, 1)
        self.heads = nn.ModuleDict()
        self.register_buffer("w_avg", torch.zeros(W_DIM))
        self.register_buffer("w_std", torch.ones(()))
        self.identifier = "mobilestylegan:random"

    @classmethod
    def load(cls, path: Path, *, heads: Path | None = None) -> MobileStyleGAN:
        """Read converted weights and, when given, the heads of the cheap paths.

        :raises WeightsError: when a tensor is missing or has another shape.
        """
        model = cls()
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        missing = [key for key in missing if key not in ("w_avg", "w_std")]
        if missing or unexpected:
            raise WeightsError(
                f"{path.name}: not MobileStyleGAN's weights (missing {missing[:3]}, unknown "
                f"{unexpected[:3]}); run 'vidswap weights fetch'"
            )
        model.measure_w()
        if heads is not None:
            model.load_heads(heads)
        model.identifier = f"{cls.name}:{_fingerprint(tensors)}"
        return channels_last(model.eval().requires_grad_(False))

    def load_heads(self, path: Path) -> None:
        """Read the heads of the 128 and 256 px paths."""
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}
        for size in _HEAD_STAGE:
            prefix = f"head{size}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if own:
                head = self.new_head(size)
                head.load_state_dict(own)
                self.heads[str(size)] = head.requires_grad_(False)

    def new_head(self, size: int) -> RgbHead:
        """An untrained head for a cheap path of ``size`` pixels."""
        rest = sum(self.style_sizes[self.own_styles(size) :])
        return RgbHead(_HEAD_CHANNELS[size], rest)

    def own_styles(self, size: int) -> int:
        """How many styles, of the first ones, the path of ``size`` computes with; a head stands in for the
        rest."""
        return 3 * _HEAD_STAGE[size] + 4 if size in _HEAD_STAGE else N_STYLES

    def rest_modulations(self, w_plus: Tensor, size: int) -> Tensor:
        """Channel scales ``[B, M]`` of the stages that a head of ``size`` pixels stands in for."""
        rest = range(self.own_styles(size), N_STYLES)
        return torch.cat([self.styles[i](w_plus[:, i]) for i in rest], dim=1)

    def in_bfloat16(self) -> MobileStyleGAN:
        """A copy that computes its features in bfloat16: pictures within about 50 dB of these, half the time
        on processors that multiply in that format. Latents, styles and pictures stay float32."""
        twin = copy.deepcopy(self)
        twin.convs.to(torch.bfloat16)
        twin.const = nn.Parameter(twin.const.to(torch.bfloat16), requires_grad=False)
        return twin

    @torch.no_grad()
    def measure_w(self, count: int = 4096) -> None:
        """Set ``w_avg`` [512] and ``w_std`` (mean over axes of W's standard deviation) from samples."""
        generator = torch.Generator().manual_seed(_SEED)
        samples = self.map(torch.randn(count, W_DIM, generator=generator))
        self.w_avg.copy_(samples.mean(0))
        self.w_std.copy_(samples.std(0).mean())

    @property
    def device(self) -> torch.device:
        return self.const.device

    def map(self, z: Tensor) -> Tensor:
        """Latents ``[B, 512]`` of Z to W ``[B, 512]``."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            x = functional.leaky_relu(layer(x), 0.2) * math.sqrt(2.0)
        return x

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Truncation towards the mean: ``w_avg + psi * (w - w_avg)``."""
        return torch.lerp(self.w_avg, w, psi)

    def sample(self, seed: int, *, psi: float = 0.7) -> Tensor:
        """The latent ``[1, 512]`` of W of a person that does not exist; the same for every device."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(1, W_DIM, generator=generator).to(self.device)
        return self.truncate(self.map(z), psi)

    def features(
        self, w_plus: Tensor, stages: int = _STAGES, *, window: Window | None = None
    ) -> Tensor:
        """Features after ``stages`` stages, ``[B, C, 4 * 2**stages, ...]``.

        With a window the last stages see only that part (all of them need the first ones whole), and what
        lies at its edges is spoilt by them.
        """
        if w_plus.ndim != 3 or w_plus.shape[1:] != (N_STYLES, W_DIM):
            raise ValueError(f"w_plus: expected [B, {N_STYLES}, {W_DIM}], got {tuple(w_plus.shape)}")
        style = self._style(0, w_plus)
        x = self.const.expand(w_plus.shape[0], -1, -1, -1)
        x = self.convs["0"](x.contiguous(memory_format=torch.channels_last), style)
        seen: Window | None = None
        for stage in range(stages):
            up = 3 * stage + 1
            if window is not None and stage in (_WINDOW_STAGE - 1, _WINDOW_STAGE):
                held = (0, 0, TILES, TILES) if seen is None else seen
                seen = window if stage == _WINDOW_STAGE else _around(window, 2)
                x = _cut(x, held, seen)
            x = inverse_haar(x, self._style(up, w_plus))
            for index in (up + 1, up + 2):
                x = self.convs[str(index)](x, self._style(index, w_plus), seen)
        return x

    def _style(self, index: int, w_plus: Tensor) -> Tensor:
        return self.styles[index](w_plus[:, index]).to(self.const.dtype)

    def synthesize(
        self, w_plus: Tensor, *, size: int = RESOLUTION, window: Window | None = None
    ) -> Tensor:
        """Images ``[B, 3, size, size]``, RGB in about [-1, 1], from W+ ``[B, 23, 512]``.

        :param size: 1024; 512, which is the same picture area-downsampled; or 128 / 256 for the cheap paths
            when their heads are loaded.
        :param window: at 1024 and 512: left, top, right, bottom in 1/128 of the side; gives just that part
            of the same picture, for less work.
        :raises ValueError: for another size or shape, or a window outside of 0..128.
        """
        if size not in (RESOLUTION, RESOLUTION // 2):
            if str(size) not in self.heads:
                raise ValueError(
                    f"size: expected {RESOLUTION}, {RESOLUTION // 2} or one of {list(self.heads)}, got {size}"
                )
            features = self.features(w_plus, _HEAD_STAGE[size] + 1)
            return self.heads[str(size)](features, self.rest_modulations(w_plus, size))
        if torch.is_grad_enabled():
            return self._whole(w_plus, size, window)
        with _ONE_PICTURE:
            return self._whole(w_plus, size, window)

    def _whole(self, w_plus: Tensor, size: int, window: Window | None) -> Tensor:
        """Pictures by the whole network."""
        if window is None:
            return self._rgb(self.features(w_plus), w_plus, size)
        left, top, right, bottom = window
        if not (0 <= left < right <= TILES and 0 <= top < bottom <= TILES):
            raise ValueError(f"window: expected left < right and top < bottom in 0..{TILES}, got {window}")
        wide = _around(window)
        image = self._rgb(self.features(w_plus, window=wide), w_plus, size)
        pixels = size // TILES
        x, y = (left - wide[0]) * pixels, (top - wide[1]) * pixels
        return image[:, :, y : y + (bottom - top) * pixels, x : x + (right - left) * pixels]

    def _rgb(self, features: Tensor, w_plus: Tensor, size: int) -> Tensor:
        style = self.styles[-1](w_plus[:, -1])
        if torch.is_grad_enabled():
            return self._rows_rgb(features, style, size)
        # Some rows at a time: as floating point numbers these are the largest arrays of the whole network.
        rows = features.split(_RGB_ROWS, dim=2)
        return torch.cat([self._rows_rgb(part, style, size) for part in rows], dim=2)

    def _rows_rgb(self, features: Tensor, style: Tensor, size: int) -> Tensor:
        # Half the low band is the mean of 2x2 pixels: the three other bands cancel in it.
        whole = size == RESOLUTION
        weight: Tensor = self.to_img.weight[:, :, 0, 0]
        bias: Tensor = self.to_img.get_parameter("bias")
        weight, bias = (weight, bias) if whole else (0.5 * weight[:3], 0.5 * bias[:3])
        # Scaling the few weights is cheaper than scaling the picture.
        weight = (weight * style[:, None]).transpose(1, 2)
        rows = features.permute(0, 2, 3, 1).float()
        bands = torch.baddbmm(bias[None, None], rows.flatten(1, 2), weight)
        bands = bands.unflatten(1, rows.shape[1:3]).permute(0, 3, 1, 2)
        return inverse_haar(bands) if whole else bands


def _around(window: Window, step: int = 1) -> Window:
    """A window with room for what its padding spoils, from and to multiples of ``step`` tiles."""
    left, top = (max(edge - _HALO, 0) // step * step for edge in window[:2])
    right, bottom = (min(-(-(edge + _HALO) // step) * step, TILES) for edge in window[2:])
    return left, top, right, bottom


def _cut(x: Tensor, held: Window, wanted: Window) -> Tensor:
    """Features ``[B, C, h, w]`` of the tiles that are wanted, of those that are held."""
    tiles = held[2] - held[0]
    left, top, right, bottom = (
        (edge - held[axis]) * x.shape[3] // tiles for edge, axis in zip(wanted, (0, 1, 0, 1), strict=True)
    )
    return x[:, :, top:bottom, left:right]


def _fingerprint(tensors: dict[str, Tensor]) -> str:
    """Short hash of the weights, for cache keys and journals."""
    import hashlib

    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
