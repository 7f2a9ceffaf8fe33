"""Small networks of tokens and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from trap_networks import trap

HEADS = 4


class Tokens(nn.Module):
    """16 tokens of 32 channels, some layers, and a head that reads their mean."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, stride=8)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head = nn.Linear(32, 10)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def mixed(self, tokens: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        return self.head((tokens + self.mixed(tokens)).mean(1))


@trap
class LayerScaleNorms(Tokens):
    """Norms over the last axis, and a raw parameter that scales channels."""

    def __init__(self) -> None:
        super().__init__(
            norm=nn.LayerNorm(32), fc1=nn.Linear(32, 64), fc2=nn.Linear(64, 32), rms=nn.RMSNorm(32)
        )
        self.gamma = nn.Parameter(torch.rand(32))
        self.position = nn.Parameter(torch.rand(1, 16, 32))

    def mixed(self, tokens: Tensor) -> Any:
        hidden = self.fc2(functional.gelu(self.fc1(self.norm(tokens + self.position))))
        return self.rms(tokens + self.gamma * hidden)


@trap
class Attention(Tokens):
    """One layer makes queries, keys and values: 3 x 8 rows go with a head."""

    def __init__(self) -> None:
        super().__init__(qkv=nn.Linear(32, 96), proj=nn.Linear(32, 32))

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        output = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(output.transpose(1, 2).reshape(batch, count, width))


@trap
class AttentionUnbind(Tokens):
    """The same, taken apart by unbind and multiplied by hand."""

    def __init__(self) -> None:
        super().__init__(qkv=nn.Linear(32, 96), proj=nn.Linear(32, 32))

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-2, -1) * 0.3).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(batch, count, width))


@trap
class AttentionEinsum(Tokens):
    """Queries, keys and values of three layers, multiplied by einsum."""

    def __init__(self) -> None:
        layers = {name: nn.Linear(32, 32) for name in ("q", "k", "v", "proj")}
        super().__init__(**layers)

    def mixed(self, tokens: Tensor) -> Any:
        query, key, value = (layer(tokens).unflatten(-1, (HEADS, -1)) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bnhd,bmhd->bhnm", query, key).softmax(-1)
        return self.proj(torch.einsum("bhnm,bmhd->bnhd", weights, value).flatten(2))


@trap
class AttentionBias(Tokens):
    """A table of relative positions has one column for each head."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__(qkv=nn.Linear(32, 96), proj=nn.Linear(32, 32))
        self.table = nn.Parameter(torch.randn(49, HEADS))
        cells = torch.arange(16)
        rows, columns = cells // 4, cells % 4
        index = (rows[:, None] - rows + 3) * 7 + columns[:, None] - columns + 3
        self.register_buffer("index", index)

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(count, count, -1).permute(2, 0, 1).contiguous()
        weights = (qkv[0] @ qkv[1].transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
        return self.proj((weights @ qkv[2]).transpose(1, 2).reshape(batch, count, width))


@trap
class AttentionBiasOfLayer(Tokens):
    """A small network makes one number for each head and pair of tokens: that is no width of a head."""

    distances: Tensor

    def __init__(self) -> None:
        super().__init__(
            bias=nn.Linear(2, 32),
            bias_of_heads=nn.Linear(32, HEADS, bias=False),
            qkv=nn.Linear(32, 96),
            proj=nn.Linear(32, 32),
        )
        cells = torch.stack([torch.arange(16) // 4, torch.arange(16) % 4], 1).float()
        self.register_buffer("distances", cells[:, None] - cells)

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        bias = self.bias_of_heads(self.bias(self.distances).relu()).permute(2, 0, 1)
        query, key, value = self.qkv(tokens).view(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(output.transpose(1, 2).reshape(batch, count, width))


@trap
class MultiQuery(Tokens):
    """All heads share one key and one value, so that channels within heads are units."""

    def __init__(self) -> None:
        super().__init__(q=nn.Linear(32, 32), kv=nn.Linear(32, 16), proj=nn.Linear(32, 32))

    def mixed(self, tokens: Tensor) -> Any:
        query = self.q(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key, value = self.kv(tokens).unsqueeze(1).chunk(2, -1)
        output = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(output.transpose(1, 2).flatten(2))


@trap
class ChannelAttention(Tokens):
    """Attention between the channels of a head, not between tokens."""

    def __init__(self) -> None:
        super().__init__(qkv=nn.Linear(32, 96), proj=nn.Linear(32, 32))
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1))

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, HEADS, -1).permute(2, 0, 3, 4, 1)
        query, key = functional.normalize(qkv[0], dim=-1), functional.normalize(qkv[1], dim=-1)
        weights = (query @ key.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.proj((weights @ qkv[2]).permute(0, 3, 1, 2).reshape(batch, count, width))


@trap
class HeadsOfConvolution(Tokens):
    """Values of all heads pass a depthwise convolution and are split into heads again."""

    def __init__(self) -> None:
        depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        super().__init__(qkv=nn.Linear(32, 96), depthwise=depthwise, proj=nn.Linear(32, 32))

    def mixed(self, tokens: Tensor) -> Any:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        images = value.transpose(-1, -2).reshape(batch, width, 4, 4)
        moved = self.depthwise(images).reshape(batch, HEADS, width // HEADS, count).transpose(-1, -2)
        output = query @ (key.softmax(2).transpose(-1, -2) @ value) + query * moved
        return self.proj(output.transpose(1, 2).reshape(batch, count, width))


@trap
class MultiheadBatchFirst(Tokens):
    """PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__(attention=nn.MultiheadAttention(32, HEADS, batch_first=True))

    def mixed(self, tokens: Tensor) -> Any:
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


@trap
class MultiheadTokensFirst(Tokens):
    """PyTorch's own attention with tokens in axis 0, and its weights, whose mean is over heads."""

    def __init__(self) -> None:
        super().__init__(attention=nn.MultiheadAttention(32, HEADS))

    def mixed(self, tokens: Tensor) -> Any:
        sequence = tokens.transpose(0, 1)
        output, weights = self.attention(sequence, sequence, sequence)
        return output.transpose(0, 1) * weights.amax(-1, keepdim=True)


@trap
class Text(nn.Module):
    """Tokens are looked up in a table, whose rows stay."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc, self.head = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 10)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randint(0, 20, (2, 12), generator=generator),)

    def forward(self, words: Tensor) -> Any:
        return self.head(self.fc(self.table(words)).relu().mean(1))
