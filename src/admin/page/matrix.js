// Who reaches whom, as each member says of itself.

import { age, ago, count, several, short, span } from "./format.js";
import { attribute, icon, make, show, text } from "./dom.js";
import { links, matrix } from "./model.js";

// Links that are named in the summary.
const NAMED = 4;
// Round trips from 0.1 ms to 1 s are shaded, ten times as long being as much darker.
const SHADE_FROM = 1e-4;
const SHADES = 4;

const WORDS = { self: "itself", bad: "unreachable", unknown: "unknown", none: "not its peer" };

export class Matrix {
  constructor(document) {
    this.at = (id) => document.getElementById(id);
    this.key = null;
    this.cells = [];
  }

  draw(answer, { at, now, live }) {
    const seen = matrix(answer, at);
    // One who watches from outside is told nobody's view, and its own is the table above.
    const drawn = seen.members.length > 1 && (Boolean(answer.raft) || seen.views > 1);
    show(this.at("matrix-section"), drawn);
    if (!drawn) return;
    const key = JSON.stringify(seen.members.map(({ id, name }) => [id, name]));
    if (key !== this.key) this.build(seen.members);
    this.key = key;
    for (const { row, from, to, element } of this.cells) {
      if (row) fillHeader(element, seen.members.find(({ id }) => id === from));
      else fill(element, seen.cell(from, to), now - at, live);
    }
    text(this.at("matrix-sum"), summary(seen, live));
    text(this.at("matrix-note"), note(seen));
  }

  build(members) {
    const name = (member) => make("bdi", { class: "name", title: `${member.name} ${member.id}` }, short(member.name));
    this.cells = [];
    const corner = make("th", { scope: "col", class: "corner" }, "from ↓ to →");
    const heads = members.map((member) => make("th", { scope: "col" }, name(member)));
    const rows = members.map((from) => {
      const small = make("small");
      this.cells.push({ row: true, from: from.id, element: small });
      const cells = members.map((to) => {
        const element = make("td");
        this.cells.push({ from: from.id, to: to.id, element });
        return element;
      });
      return make("tr", {}, make("th", { scope: "row" }, name(from), small), ...cells);
    });
    this.at("matrix").replaceChildren(make("thead", {}, make("tr", {}, corner, ...heads)), make("tbody", {}, ...rows));
  }
}

function fillHeader(element, member) {
  text(element, member.own ? "this member" : member.asked ? "" : member.reachable === false ? "cannot be asked" : "does not say");
}

function fill(element, { kind, rtt, age: before, old }, silence, live) {
  const since = before + silence;
  const shape = old || !live ? `${kind} old` : kind;
  const word = kind === "ok" ? span(rtt) : kind === "unknown" ? "?" : kind === "bad" ? "no" : kind === "none" ? "not known" : "";
  const told = old ? `${word} ${age(since)}` : word;
  if (element.className !== shape || element.textContent !== told) {
    element.className = shape;
    element.replaceChildren(...(kind === "bad" ? [icon("bad")] : []), told);
  }
  const shade = kind === "ok" && !old && live ? Math.min(1, Math.max(0, Math.log10(rtt / SHADE_FROM) / SHADES)) : 0;
  element.style.setProperty("--shade", `${Math.round(shade * 40)}%`);
  const what = kind === "ok" ? `reachable in ${span(rtt)}` : WORDS[kind];
  attribute(element, "title", Number.isFinite(since) ? `${what}, as of ${ago(since)}` : what);
}

function summary(seen, live) {
  const { ok, bad, unknown } = links(seen);
  const all = ok + bad.length + unknown;
  const was = live ? "" : "as last heard: ";
  if (ok === all) return `${was}all ${several(all, "link")} answer`;
  const parts = [`${was}${count(ok)} of ${several(all, "link")} answer`];
  if (bad.length > 0) {
    const named = bad.slice(0, NAMED).map(([from, to]) => `${short(from.name, 24)} → ${short(to.name, 24)}`);
    parts.push(`${count(bad.length)} ${bad.length === 1 ? "does" : "do"} not: ${named.join(", ")}${bad.length > NAMED ? ", …" : ""}`);
  }
  if (unknown > 0) parts.push(`${count(unknown)} unknown`);
  return parts.join("; ");
}

function note({ members, left }) {
  const silent = members.filter(({ asked }) => !asked).length;
  const parts = ["A row shows that member's measurements: the round trip of its last probe to each other member."];
  if (silent > 0) parts.push("The row of a member that cannot be asked, or does not report, is unknown.");
  if (left > 0) parts.push(`${several(left, "member")} with fewer faults are not drawn.`);
  return parts.join(" ");
}
