"""One self-contained page of features: opens from a disk or an e-mail, no network, readable without scripts and on a phone.

Tokens that fire are shaded by activation over the feature's maximum (logarithmic, so that weak firings are seen), the peak is also
bold and underlined, and every active token has its value in the hover title. A small script adds the search field and the keys
j, k and /; without it everything is there to read.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from neuronmap.features.export.records import public_name
from neuronmap.features.live.strips import MOST_OPAQUE, opacity, running

if TYPE_CHECKING:
    from neuronmap.features.storage.store import Example, FeatureRecord, FeatureStore
    from neuronmap.features.storage.text import Vocabulary

__all__ = ["feature_page"]

_SHOWN = {"top": 12, "quantile": 3, "random": 3, "hard": 3}
"""Examples shown of each kind (of each group, for quantiles)."""
_HEADS = {
    "top": "Strongest examples",
    "quantile": "From each part of the firing distribution",
    "random": "At random, silent",
    "hard": "Same token, silent",
}

_STYLE = """
:root{--paper:#fff;--ink:#1b1b1f;--soft:#5c5f66;--line:#d9dbe0;--box:#f5f6f8;--act:224,112,0;--up:#9a4b00;--down:#14539a;--focus:#1259c3}
@media(prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#ececf0;--soft:#a7abb3;--line:#383b42;--box:#202227;--act:240,140,30;
--up:#ffb066;--down:#86b9f2;--focus:#8ab4f8}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,sans-serif}
main,header{max-width:72rem;margin:0 auto;padding:0 1rem}h1{font-size:1.4rem;margin:1.2rem 0 .2rem}
h2{font-size:1.1rem;margin:0;overflow-wrap:anywhere}h3{font-size:.85rem;margin:1rem 0 .3rem;color:var(--soft);font-weight:600}
p{margin:.2rem 0}.soft{color:var(--soft);font-size:.85rem}
.bar{position:sticky;top:0;background:var(--paper);border-bottom:1px solid var(--line);z-index:1}
.bar form{max-width:72rem;margin:0 auto;padding:.6rem 1rem;display:flex;gap:.8rem;flex-wrap:wrap;align-items:center}
input{font:inherit;color:inherit;background:var(--box);border:1px solid var(--line);border-radius:6px;padding:.3rem .6rem;min-width:14rem}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
article{border-top:1px solid var(--line);padding:1.2rem 0;scroll-margin-top:4rem}
article:first-child{border-top:0}h2 a{color:var(--focus);scroll-margin-top:5rem}
.facts{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.4rem 0;padding:0;list-style:none;font-size:.9rem}
.facts b{font-weight:600}.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:.4rem 2rem;align-items:start}
.tok{display:inline-block;border:1px solid var(--line);border-radius:5px;padding:0 .35rem;margin:.1rem .2rem .1rem 0;white-space:pre;
font-size:.85rem}.tok small{color:var(--soft);margin-left:.35rem}.up{border-color:var(--up)}.down{border-color:var(--down)}
.ex{display:grid;grid-template-columns:4.2rem 1fr;gap:.7rem;padding:.15rem 0;align-items:baseline}
.ex>span{color:var(--soft);font-variant-numeric:tabular-nums;text-align:right;font-size:.85rem}
.text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext}
.text i{font-style:normal;background:rgba(var(--act),var(--a));border-radius:3px}.text i.p{font-weight:700;text-decoration:underline}
.text u{text-decoration:none;border:1px solid var(--line);border-radius:8px;padding:0 .3rem;font-size:.85em}
svg{display:block;width:100%;height:70px}svg rect{fill:rgb(var(--act))}figure{margin:1rem 0 0}figcaption{font-size:.8rem;color:var(--soft)}
summary{cursor:pointer;font-size:.85rem;color:var(--soft);font-weight:600;margin-top:.8rem}
@media(max-width:34rem){.keys{display:none}.bar label{flex:1;display:flex;gap:.5rem;align-items:center}input{min-width:0;width:100%}
.ex{grid-template-columns:1fr;gap:0}.ex>span{text-align:left}}
@media print{.bar{position:static}details{display:block}}
"""

_SCRIPT = """
const all=[...document.querySelectorAll('article')],box=document.getElementById('find'),said=document.getElementById('said');
document.querySelector('.bar').hidden=false;
function show(){const t=box.value.trim().toLowerCase();let n=0;for(const a of all){const on=!t||a.dataset.find.includes(t);
a.hidden=!on;n+=on}said.textContent=n+' of '+all.length+' features';}
box.addEventListener('input',show);document.querySelector('form').addEventListener('submit',e=>e.preventDefault());
document.addEventListener('keydown',e=>{if(e.ctrlKey||e.metaKey||e.altKey)return;
if(e.target===box){if(e.key==='Escape')box.blur();return}
if(e.key==='/'){e.preventDefault();box.focus();return}
if(e.key!=='j'&&e.key!=='k')return;const on=all.filter(a=>!a.hidden),y=e.key==='j'?1:-1;
let at=on.findIndex(a=>a.getBoundingClientRect().top>70);if(at<0)at=on.length;
const to=on[Math.max(0,Math.min(on.length-1,y>0?at:at-2))];if(to){to.scrollIntoView();
to.querySelector('h2 a').focus({preventScroll:true})}});
show();
"""


# nothing is loaded, and no script runs but this one, whatever a text in the store holds
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'"
)


def feature_page(
    store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None] | None = None
) -> Iterator[str]:
    """The page, part by part: its head, an ``<article>`` a feature, its end.

    Args:
        store: the analysis.
        features: which, in this order.
        title: what the SAE is called.
        advance: is told of each feature that is done.
    """
    yield _head(store, len(features), title)
    for feature in features:
        yield _article(store, store.feature(feature)) + "\n"
        if advance is not None:
            advance(1)
    yield f"</main><script>{_SCRIPT}</script></body></html>\n"


def _head(store: FeatureStore, count: int, title: str) -> str:
    model, hook, corpus = (
        public_name((store.facts.get(part) or {}).get("name")) or missing
        for part, missing in (("model", "unknown model"), ("hook", "unknown hook point"), ("corpus", "text"))
    )
    said = (
        f"{model}, {hook}; {store.manifest['rows']:,} tokens of {corpus} in contexts of {store.context_length}; "
        f"{count:,} of {store.num_features:,} features; analysis {store.key.removeprefix('sha256:')[:12]} of "
        f"{str(store.manifest['created'])[:10]}"
    )
    name = _text(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{name}: features</title><style>{_STYLE}</style></head><body>'
        f'<header><h1>{name}</h1><p class="soft">{_text(said)}</p><p class="soft">Shading is activation over the feature\'s '
        "largest; the peak is bold. Labels are rules without a language model; precision is an estimate for the "
        "whole text, not a count: it is computed from hit and false-call rates measured on held-out documents, at the base rate of "
        'the whole text. Recall is that hit rate.</p></header><div class="bar" hidden><form><label>Search <input id="find" type="search" '
        'placeholder="label, token, number"></label><span class="soft" id="said" aria-live="polite"></span>'
        '<span class="soft keys">keys: j, k, /</span></form></div><main>'
    )


def _article(store: FeatureStore, record: FeatureRecord) -> str:
    row, details, hint = record.row, record.details, record.hint or {}
    vocabulary = store.vocabulary
    tokens = [vocabulary.text_of(entry["token"]) for entry in details["tokens"] or []]
    words = " ".join([str(record.feature), record.label, str(hint.get("class") or ""), *tokens[:10]]).lower()
    label = _text(record.label) or '<span class="soft">no label</span>'
    body = [
        f'<h2><a id="f{record.feature}" href="#f{record.feature}">{record.feature}</a> {label}</h2>',
        _facts(row, hint),
    ]
    if row["firings"]:
        body.append(
            f'<div class="side">{_histogram(store, details["histogram"], float(row["max"]))}'
            f"{_tokens('Fires on', vocabulary, details['tokens'], 'count', '')}"
            f"{_tokens('Promotes', vocabulary, details['promoted'], 'value', 'up')}"
            f"{_tokens('Suppresses', vocabulary, details['suppressed'], 'value', 'down')}</div>"
        )
        body.append(_examples(store, record))
    else:
        body.append(
            f'<p class="soft">It never fired on {store.manifest["rows"]:,} tokens; its density is below '
            f"{row['density_high']:.2g} at 95 %.</p>"
            f"{_tokens('Promotes', vocabulary, details['promoted'], 'value', 'up')}"
        )
    return f'<article data-find="{_text(words)}">{"".join(body)}</article>'


def _facts(row: dict[str, Any], hint: dict[str, Any]) -> str:
    facts = [("density", f"{row['density']:.3%}"), ("firings", f"{row['firings']:,}"), ("largest", _number(row["max"]))]
    if row["mean"] is not None:
        facts.append(("mean", _number(row["mean"])))
    if hint.get("class"):
        facts.append(("class", str(hint["class"])))
    if hint.get("f1") is not None:
        for name in ("precision", "recall", "f1"):
            interval = (
                f"{hint[f'{name}_low']:.2f} to {hint[f'{name}_high']:.2f}" if hint[f"{name}_low"] is not None else ""
            )
            facts.append(
                (
                    name.replace("f1", "F1"),
                    f"{hint[name]:.2f}{f' ({interval})' if interval else ''}" if hint[name] is not None else "–",
                )
            )
    if row.get("nearest") is not None:
        facts.append(("nearest", f"{row['nearest']} (cosine {row['nearest_cosine']:.2f})"))
    if row.get("coactive") is not None:
        facts.append(("fires with", f"{row['coactive']} (Jaccard {row['coactive_jaccard']:.2f})"))
    items = "".join(f"<li>{_text(name)} <b>{_text(value)}</b></li>" for name, value in facts)
    rule = f"<p class='soft'>Rule: {_text(str(hint['rule']))}</p>" if hint.get("rule") else ""
    note = f"<p class='soft'>{_text(str(hint['note']))}</p>" if hint.get("note") else ""
    return f'<ul class="facts">{items}</ul>{rule}{note}'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _histogram(store: FeatureStore, counts: Sequence[int], largest: float) -> str:
    """Bars from the first to the last bin that is not empty, heights by square root so that rare strong firings are seen.

    The last bin is said to end at the largest activation, which is where its firings end.
    """
    edges = [min(float(edge), largest) for edge in store.edges]
    filled = [at for at, count in enumerate(counts) if count]
    first, last = filled[0], filled[-1] + 1
    tallest = max(counts) ** 0.5
    wide = 100 / (last - first)
    bars = "".join(
        f'<rect x="{at * wide:.2f}" y="{60 * (1 - count**0.5 / tallest):.2f}" width="{wide * 0.9:.2f}" '
        f'height="{60 * count**0.5 / tallest:.2f}"><title>{edges[first + at]:.3g} to {edges[first + at + 1]:.3g}: '
        f"{count:,} firings</title></rect>"
        for at, count in enumerate(counts[first:last])
    )
    low, high = edges[first], edges[last]
    return (
        f'<figure><svg viewBox="0 0 100 60" preserveAspectRatio="none" role="img" aria-label="Histogram of activations">{bars}</svg>'
        f"<figcaption>Firings by activation, {low:.3g} to {high:.3g}, both axes compressed (log, square root)</figcaption></figure>"
    )


def _tokens(head: str, vocabulary: Vocabulary, entries: Sequence[dict[str, Any]] | None, number: str, kind: str) -> str:
    if not entries:
        return ""
    spans = "".join(
        f'<span class="tok {kind}">{_text(_token(vocabulary, entry["token"]))}<small>{_number(float(entry[number]))}</small></span>'
        for entry in entries[:10]
    )
    return f"<div><h3>{head}</h3>{spans}</div>"


def _token(vocabulary: Vocabulary, token: int) -> str:
    """A token alone; of one that is part of a character the bytes, since such tokens would all look the same."""
    data = vocabulary.bytes_of(token)
    try:
        data.decode()
    except UnicodeDecodeError:
        return f"⟨{data.hex(' ').upper()}⟩"
    return vocabulary.shown(token)


def _examples(store: FeatureStore, record: FeatureRecord) -> str:
    largest, found = float(record.row["max"]), store.examples(record.feature)
    parts = []
    for kind, most in _SHOWN.items():
        mine = [example for example in found if example.kind == kind and example.rank < most]
        if kind == "quantile":
            mine.sort(key=lambda example: (-example.group, example.rank))
        if not mine:
            continue
        lines = "".join(_example(example, largest) for example in mine)
        opened = " open" if kind == "top" else ""
        parts.append(f"<details{opened}><summary>{_HEADS[kind]} ({len(mine)})</summary>{lines}</details>")
    return "".join(parts)


def _example(example: Example, largest: float) -> str:
    parts = []
    for piece in example.pieces():
        value = float(example.activations[piece.start : piece.stop].max()) if piece.stop > piece.start else 0.0
        is_peak = piece.start <= example.peak < piece.stop
        text = _text(piece.shown if piece.special else running(piece.text))
        if piece.special:
            text = f"<u>{text}</u>"
        if value > 0:
            share = opacity(value / largest) / MOST_OPAQUE * 0.6
            mark = ' class="p"' if is_peak else ""
            parts.append(f'<i{mark} style="--a:{share:.2f}" title="{value:.3g}">{text}</i>')
        else:
            parts.append(f"<b>{text}</b>" if is_peak else text)
    left = f"{example.activation:.3g}" if example.activation else "0"
    where = _text(f"{example.document}, context {example.sequence}, position {example.position}")
    return (
        f'<div class="ex" title="{where}"><span>{left}</span><div class="text" dir="auto">{"".join(parts)}</div></div>'
    )


def _text(text: str) -> str:
    """Text for HTML, where NUL is not allowed."""
    return html.escape(text.replace("\x00", "\ufffd"))
