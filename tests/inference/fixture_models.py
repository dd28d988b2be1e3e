"""The PyTorch modules whose exports are the ONNX fixtures: every layer of the engine, in the spellings that people
use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """A sequence model, and a head on every step or on the last one."""

    def __init__(self, body: nn.Module, head: nn.Module, *, last: bool = False, first: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.last, self.first = body, head, last, first

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y = y[0] if self.first else y
        return self.head(y[:, -1] if self.last else y)


class Horizons(nn.Module):
    """GRU with several heads: classes per horizon, quantiles, a value."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, 2, batch_first=True)
        self.classes = nn.Linear(8, 6)
        self.quantiles = nn.Linear(8, 3)
        self.value = nn.Sequential(nn.Linear(8, 4), nn.SiLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.gru(x)[0][:, -1]
        classes = torch.softmax(self.classes(h).reshape(-1, 2, 3), dim=-1)
        return classes, self.quantiles(h), self.value(h)


class Chomp(nn.Module):
    """A causal convolution by symmetric padding, cut off again."""

    def __init__(self, i: int, o: int, k: int, dilation: int, groups: int = 1) -> None:
        super().__init__()
        self.cut = (k - 1) * dilation
        self.conv = nn.Conv1d(i, o, k, padding=self.cut, dilation=dilation, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, :, : -self.cut]


class TemporalBlock(nn.Module):
    """Bai et al. 2018: two chomped convolutions and a residual, with BatchNorm."""

    def __init__(self, i: int, o: int, dilation: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Chomp(i, o, 3, dilation), nn.BatchNorm1d(o), nn.ReLU(), nn.Dropout(0.1),
                                 Chomp(o, o, 3, dilation), nn.ReLU())  # fmt: skip
        self.down = nn.Conv1d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.net(x) + self.down(x))


class Tcn(nn.Module):
    """[B, T, C] in, transposed around the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TemporalBlock(i, 6, d) for i, d in ((3, 1), (6, 2), (6, 4))))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x.transpose(1, 2)).transpose(1, 2))


class WaveNet(nn.Module):
    """Gated, with skip sums; channels first in and out, padded on the left."""

    def __init__(self, *, chunk: bool) -> None:
        super().__init__()
        self.start = nn.Conv1d(3, 4, 1)
        self.gates = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=d) for d in (1, 2, 4))
        self.skips = nn.ModuleList(nn.Conv1d(4, 5, 1) for _ in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(3))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(5, 5, 1), nn.LeakyReLU(0.2), nn.Conv1d(5, 2, 1))
        self.chunk = chunk

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total: Tensor | None = None
        for gate, skip, residual in zip(self.gates, self.skips, self.residuals, strict=True):
            z = gate(F.pad(x, (gate.dilation[0], 0)))
            a, b = z.chunk(2, dim=1) if self.chunk else (z[:, :4], z[:, 4:])
            z = torch.tanh(a) * torch.sigmoid(b)
            s = skip(z)
            total = s if total is None else total + s
            x = x + residual(z)
        assert total is not None
        return self.end(total)


class Separable(nn.Module):
    """Depthwise and grouped convolutions with GELU, pooling over time, features joined and cut."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv1d(6, 6, 3, groups=6)
        self.point = nn.Conv1d(6, 8, 1)
        self.group = nn.Conv1d(8, 8, 2, groups=2)
        self.pad = nn.ConstantPad1d((3, 0), 0.0)
        self.mean = nn.AvgPool1d(4, stride=1)
        self.largest = nn.MaxPool1d(3, stride=1)
        self.head = nn.Linear(22, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        y = F.gelu(self.point(self.depth(F.pad(x, (2, 0)))))
        z = F.relu(self.group(F.pad(y, (1, 0))))
        joined = torch.cat([self.mean(self.pad(y)), self.largest(F.pad(z, (2, 0))), x], dim=1)
        return self.head(joined.transpose(1, 2))


class Strided(nn.Module):
    """Stride 2 over time, then an LSTM at half the rate, its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3, stride=2)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.conv(F.pad(x.transpose(1, 2), (2, 0))))
        return self.head(self.lstm(y.transpose(1, 2))[0][:, -1])


class DeepLob(nn.Module):
    """Zhang et al. 2019 in small and causal: book levels by (1, 2), time by (4, 1), inception branches, LSTM."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.01)
        down = lambda k: nn.ZeroPad2d((0, 0, k - 1, 0))  # noqa: E731
        self.book = nn.Sequential(
            nn.Conv2d(1, 4, (1, 2), stride=(1, 2)), act, nn.BatchNorm2d(4), down(4), nn.Conv2d(4, 4, (4, 1)), act,
            nn.Conv2d(4, 6, (1, 2), stride=(1, 2)), nn.Tanh(), down(3), nn.Conv2d(6, 6, (3, 1)), act,
            nn.Conv2d(6, 6, (1, 5)), act,
        )  # fmt: skip
        self.short = nn.Sequential(nn.Conv2d(6, 4, 1), act, down(3), nn.Conv2d(4, 4, (3, 1)), act)
        self.long = nn.Sequential(nn.Conv2d(6, 4, 1), act, down(5), nn.Conv2d(4, 4, (5, 1)), act)
        self.most = nn.Sequential(nn.MaxPool2d((3, 1), stride=1, padding=(1, 0)), nn.Conv2d(6, 4, 1), act)
        self.lstm = nn.LSTM(8, 7, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:  # [B, 1, T, 20]
        y = self.book(x)
        y = torch.cat([self.short(y), self.long(y)], dim=1)
        y = y.permute(0, 2, 1, 3)
        y = torch.reshape(y, (-1, y.shape[1], y.shape[2]))
        return torch.softmax(self.head(self.lstm(y)[0][:, -1]), dim=1)


class LevelFlatten(nn.Module):
    """Levels left over are flattened channel first into a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, (2, 4), stride=(1, 4))
        self.gru = nn.GRU(9, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, 1, T, 12]
        y = torch.relu(self.conv(F.pad(x, (0, 0, 1, 0))))
        return self.gru(y.permute(0, 2, 1, 3).flatten(2))[0]


class WindowDense(nn.Module):
    """A dense layer over a whole window of known length."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * steps, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class WindowMean(nn.Module):
    """A mean and a maximum over a window of known length behind a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0]
        return self.head(torch.cat([y.mean(dim=1), y.amax(dim=1)], dim=-1))


def band(t: int, window: int, device: torch.device) -> Tensor:
    """True where a row may attend."""
    i = torch.arange(t, device=device)
    age = i[:, None] - i[None, :]
    return (age >= 0) & (age < window)


class Mha(nn.Module):
    """nn.MultiheadAttention with a banded causal mask from the length, pre-norm, GELU feed-forward."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.inp = nn.Linear(4, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 2)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        mask = torch.zeros(x.shape[1], x.shape[1]).masked_fill(~band(x.shape[1], self.window, x.device), float("-inf"))
        y = self.norm1(x)
        x = x + self.attention(y, y, y, attn_mask=mask.to(x.dtype), need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return self.head(self.norm3(x))


class Encoder(nn.Module):
    """nn.TransformerEncoderLayer over a fixed window with learned positions."""

    def __init__(self, steps: int, *, norm_first: bool, activation: str, batch_first: bool = True) -> None:
        super().__init__()
        self.inp = nn.Linear(3, 8)
        self.position = nn.Parameter(torch.randn(1, steps, 8) if batch_first else torch.randn(steps, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, activation, norm_first=norm_first, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(steps))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.inp(x) + self.position, mask=self.mask, is_causal=True))


class Sinusoidal(nn.Module):
    """Sinusoidal positions from a long table, full causal attention, open length."""

    def __init__(self) -> None:
        super().__init__()
        t, d = torch.arange(64.0)[:, None], torch.arange(0, 8, 2)
        table = torch.zeros(64, 8)
        table[:, 0::2] = torch.sin(t * torch.exp(d * (-math.log(10000.0) / 8)))
        table[:, 1::2] = torch.cos(t * torch.exp(d * (-math.log(10000.0) / 8)))
        self.register_buffer("table", table[None])
        self.inp, self.qkv, self.out = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x) * math.sqrt(8.0)
        x = x + self.table[:, : x.shape[1]]
        b, t, _ = x.shape
        q, k, v = (a.reshape(b, t, 2, 4).transpose(1, 2) for a in self.qkv(x).split(8, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, 8)))


class RmsNorm(nn.Module):
    """Zhang & Sennrich 2019, by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate_half(x: Tensor) -> Tensor:
    """Pairs (i, i + dim / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (2 i, 2 i + 1)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class Llama(nn.Module):
    """Rotary positions, grouped queries, RMSNorm, a SiLU gate, a band by -1e9 added to the scores."""

    def __init__(self, *, interleaved: bool, window: int = 6, base: float = 10_000.0, steps: int = 64) -> None:
        super().__init__()
        self.heads, self.kv, self.dim, self.window, self.interleaved = 4, 2, 6, window, interleaved
        self.inp = nn.Linear(5, 16)
        self.norm1, self.norm2 = RmsNorm(16), RmsNorm(16)
        self.q = nn.Linear(16, 24, bias=False)
        self.k, self.v = nn.Linear(16, 12, bias=False), nn.Linear(16, 12, bias=False)
        self.o = nn.Linear(24, 16, bias=False)
        self.gate, self.up, self.down = nn.Linear(16, 20), nn.Linear(16, 20), nn.Linear(20, 16)
        self.head = nn.Linear(16, 3)
        angle = torch.arange(float(steps))[:, None] * base ** (-torch.arange(0, 6, 2) / 6.0)
        angle = angle if interleaved else torch.cat([angle, angle], dim=-1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rotate(self, x: Tensor) -> Tensor:
        t = x.shape[2]
        cos, sin = self.cos[:t], self.sin[:t]
        return rotate_pairs(x, cos, sin) if self.interleaved else x * cos + rotate_half(x) * sin

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        b, t, _ = x.shape
        y = self.norm1(x)
        q = self.rotate(self.q(y).view(b, t, self.heads, self.dim).transpose(1, 2))
        k = self.rotate(self.k(y).view(b, t, self.kv, self.dim).transpose(1, 2))
        v = self.v(y).view(b, t, self.kv, self.dim).transpose(1, 2)
        k, v = (a.repeat_interleave(self.heads // self.kv, dim=1) for a in (k, v))
        i = torch.arange(t)
        keep = (i[:, None] >= i[None, :]) & (i[:, None] - i[None, :] < self.window)
        scores = q @ k.transpose(2, 3) / math.sqrt(self.dim) + torch.where(keep, 0.0, -1e9).to(x.dtype)
        y = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(b, t, -1)
        x = x + self.o(y)
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Alibi(nn.Module):
    """Linear biases from the distance, masked_fill with -1e4, split square root of the scale."""

    def __init__(self, window: int = 5) -> None:
        super().__init__()
        self.window = window
        self.qkv, self.out = nn.Linear(4, 36), nn.Linear(12, 2)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25, 0.125]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        i = torch.arange(t)
        age = i[:, None] - i[None, :]
        scores = (q * 4**-0.25) @ (k * 4**-0.25).transpose(-1, -2) - self.slopes * age.to(x.dtype)
        scores = scores.masked_fill((age < 0) | (age >= self.window), -1e4)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class LastQuery(nn.Module):
    """The last row attends to a window of known length; no mask is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 6, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0]
        q = self.q(y[:, -1:])
        shares = torch.softmax(q @ self.k(y).transpose(1, 2) / math.sqrt(6.0), dim=-1)
        return self.head((shares @ self.v(y)).squeeze(1))


class LstmCellStep(nn.Module):
    """nn.LSTMCell, one step; the exporters write it out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, c = self.cell(x, (h, c))
        return self.head(h), h, c


class GruCellStep(nn.Module):
    """nn.GRUCell, one step, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.GRUCell(4, 5), nn.GRUCell(5, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, h: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.a(x, h)
        g = self.b(h, g)
        return self.head(g), h, g


class ConcatCellStep(nn.Module):
    """An LSTM by hand: one product with [x, h], gates in the order f, i, o, g, and a projection."""

    def __init__(self, *, projection: bool) -> None:
        super().__init__()
        self.gates = nn.Linear(4 + (3 if projection else 5), 20)
        self.project = nn.Linear(5, 3, bias=False) if projection else nn.Identity()
        self.head = nn.Linear(3 if projection else 5, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f, i, o, g = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = self.project(torch.sigmoid(o) * torch.tanh(c))
        return self.head(h), h, c


class MinimalGruStep(nn.Module):
    """A GRU by hand whose reset gate acts before the product, n blended the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.rz, self.rz_h = nn.Linear(4, 10), nn.Linear(5, 10)
        self.n, self.n_h = nn.Linear(4, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        r, z = torch.sigmoid(self.rz(x) + self.rz_h(h)).chunk(2, dim=1)
        n = torch.tanh(self.n(x) + self.n_h(r * h))
        h = (1 - z) * n + z * h
        return self.head(h), h


class ConvStep(nn.Module):
    """Two dilated convolutions with rings as states, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3), nn.Conv1d(4, 4, 2, dilation=3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, ring: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.cat([ring, x.unsqueeze(2)], dim=2)
        y = torch.relu(self.a(first))
        second = torch.cat([other, y], dim=2)
        z = torch.tanh(self.b(second)) + y
        return self.head(z.squeeze(2)), first[:, :, 1:], second[:, :, 1:]


class OddRow(nn.Module):
    """Norms, gates and slices of one row, without time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.batch = nn.BatchNorm1d(6)
        self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.a(self.batch(x)))
        y = self.b(y[:, :4] * torch.sigmoid(y[:, 4:]))
        return torch.cat([self.norm(y + x), F.leaky_relu(y[:, 1:3], 0.3)], dim=1)
