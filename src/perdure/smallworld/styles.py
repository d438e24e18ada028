"""Picture styles, applied to the finished picture."""

from __future__ import annotations

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SEPIA = np.array([[1.0, 0.84, 0.62]], np.float32)
_y, _x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
_RADIUS = np.sqrt(_x * _x + _y * _y)
_CORNERS = np.maximum(np.abs(_x), np.abs(_y)) + 0.12 * (_x * _x * _y * _y)


def _blur(image: np.ndarray) -> np.ndarray:
    """A separable [1 2 1] / 4 blur."""
    p = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) * 0.0625


def _drawing(image: np.ndarray) -> np.ndarray:
    soft = _blur(image)
    p = np.pad(soft, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across, down = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
    edge = np.sqrt(across * across + down * down).max(-1, keepdims=True)
    tone = (soft @ _LUMA)[..., None]
    paper = np.array([250, 247, 238], np.float32)
    hatch = 205 + 0.2 * tone
    tinted = paper * (hatch / 250) * 0.8 + 0.2 * soft
    return tinted - np.clip(edge * 1.5 - 22, 0, 190)


def _pixels(image: np.ndarray) -> np.ndarray:
    p = np.pad(image, ((0, 2), (0, 2), (0, 0)), mode="edge")
    blocks = p.reshape(22, 3, 22, 3, 3).mean((1, 3))
    blocks = np.clip(np.round((blocks - 128) * 1.15 / 40) * 40 + 128, 0, 255)
    return blocks.repeat(3, 0).repeat(3, 1)[:64, :64]


def _night_vision(image: np.ndarray) -> np.ndarray:
    tone = 40 + 0.85 * (image @ _LUMA)
    tone = tone * np.clip(1.25 - 0.6 * _RADIUS, 0, 1.1)
    return tone[..., None] * np.array([0.22, 1.0, 0.3], np.float32)


def _sepia(image: np.ndarray) -> np.ndarray:
    tone = 30 + 0.86 * (image @ _LUMA)
    return tone[..., None] * _SEPIA


def _watercolour(image: np.ndarray) -> np.ndarray:
    soft = _blur(image)
    soft = 0.6 * np.round(soft / 56) * 56 + 0.4 * soft
    pale = 255 - (255 - _blur(soft)) * 0.78
    edge = np.clip((_CORNERS - 0.8) * 6, 0, 1)[..., None]
    return pale * (1 - edge) + 252 * edge


_STYLES = {
    "drawing": _drawing,
    "pixel art": _pixels,
    "night vision": _night_vision,
    "sepia": _sepia,
    "watercolour": _watercolour,
}


def apply_style(image: np.ndarray, style: str) -> np.ndarray:
    """A uint8 (64, 64, 3) picture in ``style``; "photo" returns it unchanged."""
    if style == "photo":
        return image
    styled = _STYLES[style](image.astype(np.float32))
    return np.clip(styled + 0.5, 0, 255).astype(np.uint8)
