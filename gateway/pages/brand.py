"""The seller's colour as a style sheet: one colour in, and what is readable on light and on dark out."""

from __future__ import annotations

import re

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
DEFAULT = "#3b4a8c"
LIGHT, DARK = "#ffffff", "#14181f"  # the grounds of cards, as page.css has them
READABLE = 4.5  # WCAG 2.2, 1.4.3: contrast of text

Rgb = tuple[float, float, float]


def usable(color: str) -> str:
    """`#rrggbb` as it is, else the default."""
    return color.lower() if _COLOR.fullmatch(color) else DEFAULT


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio, 1 to 21."""
    darker, lighter = sorted((_luminance(_rgb(one)), _luminance(_rgb(other))))
    return (lighter + 0.05) / (darker + 0.05)


def readable_on(ground: str) -> str:
    """Black or white text, whichever reads better."""
    return max(("#ffffff", "#000000"), key=lambda text: contrast(text, ground))


def toward(color: str, other: str, ground: str) -> str:
    """The colour, mixed with as little of `other` as makes it readable as text on `ground`."""
    start, end = _rgb(color), _rgb(other)
    for step in range(21):
        mixed = _hex(tuple(a + (b - a) * step / 20 for a, b in zip(start, end, strict=True)))
        if contrast(mixed, ground) >= READABLE:
            return mixed
    return other


def style_sheet(color: str) -> str:
    """Custom properties: the button's ground and text; links and bars on light, and on dark."""
    light, dark = toward(color, "#000000", "#f6f7f9"), toward(color, "#ffffff", DARK)
    return (
        f":root{{--brand:{color};--on-brand:{readable_on(color)};--accent:{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{--accent:{dark}}}}}\n"
    )


def _rgb(color: str) -> Rgb:
    return (int(color[1:3], 16) / 255, int(color[3:5], 16) / 255, int(color[5:7], 16) / 255)


def _hex(rgb: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in rgb)


def _luminance(rgb: Rgb) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
