"""Every mail in a browser, as phones and desktops show it, by day and by night."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.notify import samples
from services.notify.domain import Brand
from services.notify.preview import KINDS, written
from tests.e2e.browser import running

WIDTHS = (390, 700)
BRANDS = {"teal": "#0f766e", "pale": "#fde68a"}
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft " * 2
# Each text that is shown, with the contrast it has (WCAG 2.2) to what lies behind it.
CONTRASTS = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const luminance = c => {
    const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), e = walker.currentNode.parentElement;
    if (!text || text === "\u00a0" || !e.getClientRects().length) continue;
    const [a, b] = [parse(getComputedStyle(e).color), behind(e)].map(luminance).sort((x, y) => y - x);
    found.push([text, (a + .05) / (b + .05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_mail_fits_its_screen_and_can_be_read(scheme: str) -> None:
    folder = os.environ.get("TOLLWAY_SCREENSHOTS")
    async with running() as browser:
        context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
        page = await context.new_page()
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 800})
            for kind in KINDS:
                for name, color in BRANDS.items():
                    brand = Brand("Skytale", samples.BRAND.support_contact, color, samples.BRAND.billing_url)
                    html = written(kind, brand).get_body(("html",))
                    assert html is not None
                    # The longest name that is shown, where a name is.
                    shown = html.get_content().replace("Acme Rockets", LONG if name == "pale" else "Acme Rockets")
                    await page.set_content(shown)
                    wide = await page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{kind} is {wide} px wide on a screen of {width}"
                    texts = await page.evaluate(CONTRASTS)
                    assert len(texts) > 4
                    dim = [(text, contrast) for text, contrast in texts if contrast < 4.5]
                    assert not dim, f"{kind}, {scheme}, {color}: {dim}"
                    if folder:
                        path = Path(folder) / f"mail-{kind}-{name}-{width}-{scheme}.png"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        await page.screenshot(path=path, full_page=True)
        await context.close()
