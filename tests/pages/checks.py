"""What every page must be, asked of the page itself in a browser, and of the files around it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

MOST_BYTES = 2_000_000

ACCESSIBLE = """
(() => {
  const wrong = [];
  const say = (what, element) => wrong.push(what + ": " + (element?.outerHTML ?? "").slice(0, 120));
  if (!document.documentElement.lang) say("no language");
  if (!document.title.trim()) say("no title");
  const count = selector => document.querySelectorAll(selector).length;
  for (const name of ["main", "header", "footer"]) if (count("body > " + name) !== 1) say("not one " + name);
  if (count("h1") !== 1) say("not one h1");
  let level = 0;
  for (const head of document.querySelectorAll("h1, h2, h3, h4")) {
    const own = Number(head.tagName[1]);
    if (own > level + 1) say("a level of headings is missing before", head);
    if (!head.textContent.trim()) say("empty heading", head);
    level = own;
  }
  for (const image of document.images) {
    if (!image.hasAttribute("alt")) say("no alt", image);
    if (image.alt === "" && !image.closest("[aria-hidden=true]")) say("alt is empty", image);
    if (!image.getAttribute("width") || !image.getAttribute("height")) say("no size: the page would jump", image);
  }
  for (const svg of document.querySelectorAll("svg:not([role=img][aria-label])")) say("svg without words", svg);
  const controls = [...document.querySelectorAll("input, select")];
  for (const control of controls) if (!control.labels.length) say("no label", control);
  for (const each of document.querySelectorAll("a, button")) {
    const alts = [...each.querySelectorAll("img")].map(image => image.alt).join("");
    const words = each.getAttribute("aria-label") || each.textContent.trim() || alts;
    if (!words && each.getAttribute("aria-hidden") !== "true") say("no words", each);
  }
  for (const table of document.querySelectorAll("table")) {
    for (const head of table.querySelectorAll("th:not([scope=col], [scope=row])")) say("th without scope", head);
    if (!table.tHead) say("no head", table);
    const width = table.tHead?.rows[0].cells.length;
    for (const row of table.tBodies[0]?.rows ?? []) if (row.cells.length !== width) say("a row of another length", row);
    const region = table.closest("[role=region][aria-label]");
    if (region?.tabIndex !== 0) say("cannot be scrolled by keyboard", table);
  }
  const ids = [...document.querySelectorAll("[id]")].map(each => each.id);
  if (new Set(ids).size !== ids.length) say("an id twice");
  for (const nav of document.querySelectorAll("nav:not([aria-label])")) say("nav without a name", nav);
  return wrong;
})()
"""
"""Complaints; the most common ones of axe-core's rules, of those that such pages could break."""

CONTRAST = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const linear = value => value / 255 <= .04045 ? value / 255 / 12.92 : ((value / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const paper = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const worst = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, script, style, .layers")) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(paper(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) worst.push(ratio.toFixed(2) + " " + element.outerHTML.slice(0, 100));
  }
  return worst;
})()
"""
"""Texts whose contrast is below 4.5 : 1 (WCAG 2.2, 1.4.3)."""


def links(page: Path) -> list[str]:
    """Every address that a page names."""
    return [found.replace("&amp;", "&") for found in re.findall(r'(?:href|src)="([^"]*)"', page.read_text())]


def dead_links(page: Path) -> list[str]:
    """Those that lead nowhere: no such file, no such place on the page."""
    text, dead = page.read_text(encoding="utf-8"), []
    for link in links(page):
        path, _, place = link.partition("#")
        if "://" in link or link.startswith("/"):
            dead.append(f"{link}: not beside the page")
        elif not ((page.parent / unquote(path)).resolve().is_file() if path else f'id="{place}"' in text):
            dead.append(link)
    return dead


def weight(page: Path) -> int:
    """Bytes of a page with everything that it shows."""
    shown = {unquote(found) for found in re.findall(r'src="([^"]*)"', page.read_text(encoding="utf-8"))}
    return page.stat().st_size + sum((page.parent / path).stat().st_size for path in shown)
