"""A one-page PDF of text lines, written by hand: Helvetica, A4, no compression (ISO 32000-1)."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH, HEIGHT = 595, 842


@dataclass(frozen=True)
class Text:
    """`x` from the left and `y` from the top, in points; right-aligned text ends at `x`."""

    x: int
    y: int
    text: str
    size: int = 10
    bold: bool = False
    right: bool = False


# Advance widths of Helvetica in thousandths, for right alignment of figures; other characters are taken as average.
_WIDTHS = {**dict.fromkeys("0123456789$", 556), ".": 278, ",": 278, "-": 333, " ": 278, "€": 556, "£": 556, "¥": 556}


def _width(text: str, size: int) -> float:
    return sum(_WIDTHS.get(char, 560) for char in text) * size / 1000


def _escaped(text: str) -> bytes:
    raw = text.encode("cp1252", "replace")
    return raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def document(texts: list[Text], rules: list[int], title: str) -> bytes:
    """`rules` are heights, from the top, of thin lines across the page."""
    content = bytearray()
    for item in texts:
        x = item.x - _width(item.text, item.size) if item.right else item.x
        font = b"F2" if item.bold else b"F1"
        content += b"BT /%s %d Tf %.1f %d Td (%s) Tj ET\n" % (font, item.size, x, HEIGHT - item.y, _escaped(item.text))
    for y in rules:
        content += b"0.8 G 0.5 w 50 %d m 545 %d l S\n" % (HEIGHT - y, HEIGHT - y)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 6 0 R"
        b" /Resources << /Font << /F1 4 0 R /F2 5 0 R >> >> >>" % (WIDTH, HEIGHT),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), bytes(content)),
        b"<< /Title (%s) >>" % _escaped(title),
    ]
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 7 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
