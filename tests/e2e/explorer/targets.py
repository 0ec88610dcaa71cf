"""What can be pointed at is 24 by 24 CSS pixels or stands alone (WCAG 2.2 AA, 2.5.8).

As the criterion has it, a smaller target is no fault where a circle of 24 pixels around its middle touches no other target and no
other such circle, or where it is a link within a sentence. Points of plots are left out: their place is what they say.
"""

from __future__ import annotations

from playwright.sync_api import Page

_CROWDED = r"""() => {
  const shown = { visibilityProperty: true, contentVisibilityAuto: true };
  const whole = (one) => one.matches("input[type=checkbox], input[type=radio]") ? one.closest("label") || one : one;
  const inSentence = (one) => {
    if (one.matches(".text a")) return true; // the tokens of a text are its words
    if (getComputedStyle(one).display !== "inline") return false;
    let block = one.parentElement;
    while (getComputedStyle(block).display === "inline") block = block.parentElement;
    const inline = (part) => part.nodeType === Node.TEXT_NODE
      || (part.nodeType === Node.ELEMENT_NODE && !part.matches("a") && getComputedStyle(part).display === "inline");
    return [...block.childNodes].some((part) => !part.contains(one) && inline(part) && /[\p{L}\p{N}]/u.test(part.textContent));
  };
  const targets = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [role=button]")]
    .filter((one) => !one.disabled && one.checkVisibility(shown) && !one.closest(".skip, .hidden"))
    .map((one) => ({ one, box: whole(one).getBoundingClientRect() }))
    .filter(({ box }) => box.width && box.height)
    .map((target) => ({ ...target, small: target.box.width < 23.95 || target.box.height < 23.95,
      x: (target.box.left + target.box.right) / 2, y: (target.box.top + target.box.bottom) / 2 }));
  const away = ({ x, y }, box) => Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
  const crowd = (target) => targets.some((other) => !whole(target.one).contains(other.one) && !whole(other.one).contains(target.one)
    && (away(target, other.box) < 12 || (other.small && Math.hypot(target.x - other.x, target.y - other.y) < 24)));
  return targets
    .filter((target) => target.small && !target.one.closest("svg") && !inSentence(target.one) && crowd(target))
    .map(({ one, box }) => `${box.width.toFixed(1)} x ${box.height.toFixed(1)}: ${one.outerHTML.slice(0, 160)}`);
}"""


def crowded(page: Page, width: int) -> list[str]:
    """Targets that are too small and too near to others in a window of a width, one line each."""
    page.set_viewport_size({"width": width, "height": 900})
    found: list[str] = page.evaluate(_CROWDED)
    return [f"{width} px wide: {one}" for one in found]
