// The few things that the page does to the document. What a server said is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// An element with attributes and children; strings become text.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A symbol of index.html. It stands beside words, which say the same.
export function icon(symbol) {
  return svg("svg", { class: `icon ${symbol}`, "aria-hidden": "true" }, svg("use", { href: `#${symbol}` }));
}

// Only what differs is touched: a page that changes each second keeps its selection, and its reader calm.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function attribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// An icon and a word.
export class State {
  constructor(element = make("span")) {
    this.element = element;
    this.word = make("span");
    this.symbol = null;
  }

  set(symbol, word) {
    if (this.symbol !== symbol) {
      this.symbol = symbol;
      this.element.className = `state ${symbol}`;
      this.element.replaceChildren(icon(symbol), this.word);
    }
    text(this.word, word);
  }
}

// Children of `parent` by key, in the given order; made once, kept while their key is there.
export class Keyed {
  constructor(parent, create) {
    this.parent = parent;
    this.create = create;
    this.parts = new Map();
  }

  update(items, key, apply) {
    const wanted = new Map(items.map((item) => [key(item), item]));
    for (const [id, part] of this.parts) {
      if (wanted.has(id)) continue;
      for (const node of part.nodes) node.remove();
      this.parts.delete(id);
    }
    let place = this.parent.firstChild;
    for (const [id, item] of wanted) {
      let part = this.parts.get(id);
      if (!part) this.parts.set(id, (part = this.create(item)));
      for (const node of part.nodes) {
        if (node === place) place = place.nextSibling;
        else this.parent.insertBefore(node, place);
      }
      apply(part, item);
    }
  }
}

// Terms and what they say, in a dl. None of them changes place for what another says.
export class Facts {
  constructor(list) {
    this.keyed = new Keyed(list, ([term]) => {
      const value = make("dd");
      return { nodes: [make("div", {}, make("dt", {}, term), value)], value };
    });
  }

  set(facts) {
    this.keyed.update(facts.filter(Boolean), ([term]) => term, (part, [, value]) => text(part.value, value));
  }
}
