// The table of peers: a row each, and below it all that is known when it is asked for.

import { age, ago, bytes, count, NONE, rate, seconds, several, short, signed, span, words } from "./format.js";
import { attribute, Facts, icon, Keyed, make, show, State, text } from "./dom.js";
import { ordered, snapshotWords, sum, total, underWay, verdict } from "./model.js";
import { Spark } from "./spark.js";

// Rows that are drawn, and that are added when more are asked for.
const ROWS = 100;
// From this many peers on there is a filter.
const FILTER_FROM = 12;

// Letters of a name that are shown.
const NAME = 64;

const WAYS = ["in", "out"];
const CHANNELS = ["msgapp", "message"];

export class Peers {
  constructor(document) {
    this.at = (id) => document.getElementById(id);
    this.rows = new Keyed(this.at("peers").tBodies[0], ({ id }) => new Row(id));
    this.most = ROWS;
    this.at("filter").addEventListener("input", () => this.again());
    this.at("peers-more").addEventListener("click", () => {
      this.most += ROWS;
      this.again();
    });
  }

  again() {
    if (this.last) this.draw(...this.last);
  }

  draw(answer, rates, moment) {
    this.last = [answer, rates, moment];
    const peers = answer.peers ?? [];
    const wanted = this.at("filter").value.trim().toLowerCase();
    const sorted = ordered(peers, answer.probe, moment.at, rates).filter((peer) => !wanted || matches(peer, wanted));
    const shown = sorted.slice(0, this.most);
    // A watcher has neither streams nor messages to show, and no columns for them.
    const none = peers.length > 0 && !peers.some(({ outgoing, streams }) => outgoing || streams?.length > 0);
    this.at("peers").classList.toggle("links-only", none);
    const context = { probe: answer.probe, leader: answer.raft?.leader ?? null, ...moment };
    this.rows.update(shown, (peer) => peer.id, (row, peer) => row.set(peer, rates.get(peer.id), context));
    text(this.at("peers-sum"), summary(peers, answer, moment));
    show(this.at("filter-label"), peers.length >= FILTER_FROM);
    this.note(peers, sorted, shown);
  }

  note(peers, sorted, shown) {
    const note = this.at("peers-note");
    const left = sorted.length - shown.length;
    show(note, peers.length === 0 || sorted.length === 0 || left > 0);
    if (peers.length === 0) text(note, "No peers: this member is alone.");
    else if (sorted.length === 0) text(note, "No peer matches the filter.");
    else text(note, `The ${count(shown.length)} worst of ${count(sorted.length)} peers. The filter looks through all of them.`);
    const button = this.at("peers-more");
    show(button, left > 0);
    text(button, `Show ${count(Math.min(left, ROWS))} more`);
  }
}

function matches(peer, wanted) {
  return [peer.name, peer.id, ...(peer.urls ?? [])].some((word) => String(word ?? "").toLowerCase().includes(wanted));
}

function summary(peers, { probe }, { at, live }) {
  if (peers.length === 0) return "";
  const verdicts = peers.map((peer) => verdict(peer, probe, at));
  const having = (wanted) => verdicts.filter(({ symbol, word }) => symbol === wanted && word !== "refused").length;
  const refused = verdicts.filter(({ word }) => word === "refused").length;
  const [bad, unknown] = [having("bad"), having("unknown")];
  const was = live ? "" : "as last heard: ";
  const ledgers = peers.flatMap(({ outgoing, incoming }) => [outgoing, incoming]).filter(Boolean);
  const off = ledgers.filter(({ balanced }) => balanced === false).length;
  const parts = [`${was}${count(peers.length - bad - unknown - refused)} of ${several(peers.length, "peer")} reachable`];
  if (refused > 0) parts.push(`${count(refused)} refused`);
  if (bad > 0) parts.push(`${count(bad)} unreachable`);
  if (unknown > 0) parts.push(`${count(unknown)} unknown`);
  if (ledgers.length > 0) parts.push(off > 0 ? `${several(off, "ledger")} off balance` : "ledger balanced");
  return parts.join(", ");
}

// A cell that knows its column's name: on a phone, where a row is a card, it is shown beside it.
function cell(label, name, ...children) {
  return make("td", { role: "cell", "data-label": label, class: name }, ...children);
}

class Row {
  constructor(id) {
    this.id = id;
    this.open = false;
    this.name = make("bdi", { class: "name" });
    this.code = make("code", {}, id);
    this.tag = make("span", { class: "tag" });
    this.button = make("button", { type: "button", class: "more", "aria-expanded": "false" }, icon("open"));
    this.state = new State();
    this.since = make("small");
    this.snapshots = WAYS.map((way) => new SnapshotBar(way));
    this.rtt = make("b");
    this.quantiles = make("small");
    this.spark = new Spark();
    this.clock = make("span");
    this.streams = new Streams();
    this.sent = make("span");
    this.dropped = make("span");
    this.reasons = make("small");
    this.queued = make("span");
    this.unconfirmed = make("span");
    this.lost = make("small");
    this.error = make("span", { class: "error" });
    this.errorAt = make("small");
    const who = make("div", { class: "whose" }, this.button, make("div", {}, this.name, " ", this.tag, this.code));
    const header = make("th", { role: "rowheader", scope: "row" }, who);
    const line = make("tr", { role: "row", class: "peer" }, header,
      cell("Link", "link", this.state.element, this.since, ...this.snapshots.map(({ element }) => element)),
      cell("Round trip", "rtt", make("div", {}, this.rtt, this.quantiles), this.spark.element),
      cell("Clock", "number clock", this.clock),
      cell("Streams", "streams", this.streams.element),
      cell("Sent", "number sent", this.sent),
      cell("Dropped", "number dropped", this.dropped, this.reasons),
      cell("Queued", "number queued", this.queued),
      cell("Unconfirmed", "number unconfirmed", this.unconfirmed, this.lost),
      cell("Last error", "last", this.error, this.errorAt));
    this.line = line;
    this.nodes = [line];
    this.button.addEventListener("click", () => this.toggle());
  }

  toggle() {
    this.open = !this.open;
    attribute(this.button, "aria-expanded", String(this.open));
    // Made when it is asked for: a thousand peers have enough to draw without.
    if (!this.detail) {
      this.detail = new Detail(this.id);
      this.nodes.push(this.detail.element);
      this.line.after(this.detail.element);
      attribute(this.button, "aria-controls", this.detail.element.id);
    }
    show(this.detail.element, this.open);
    if (this.open) this.detail.set(this.peer, this.context);
  }

  set(peer, rates, context) {
    Object.assign(this, { peer, context });
    text(this.name, short(peer.name || peer.id, NAME));
    attribute(this.name, "title", peer.name || null);
    show(this.code, Boolean(peer.name));
    const tag = peer.id === context.leader ? "leader" : peer.paused ? "paused" : peer.remote ? "remote" : "";
    text(this.tag, tag);
    show(this.tag, tag !== "");
    attribute(this.button, "aria-label", `All about ${short(peer.name || peer.id)}`);
    this.link(peer, context);
    for (const bar of this.snapshots) bar.set(peer.snapshots, context);
    text(this.clock, signed(peer.clock_offset_seconds));
    this.streams.set(peer.streams ?? [], context);
    this.messages(peer, rates);
    text(this.error, peer.last_error?.error ?? NONE);
    attribute(this.error, "title", peer.last_error?.error ?? null);
    text(this.errorAt, peer.last_error ? ago(context.now - seconds(peer.last_error.time)) : "");
    if (this.open) this.detail.set(peer, context);
  }

  link(peer, { probe, at, now, live }) {
    const { symbol, word, late, old } = verdict(peer, probe, at);
    this.state.set(live ? symbol : "unknown", live ? word : `was ${word}`);
    attribute(this.line, "data-link", symbol);
    const active = peer.active ? `active ${age(now - seconds(peer.active_since))}` : peer.active === false ? "inactive" : "";
    text(this.since, late || old || !live ? `probed ${ago(now - seconds(peer.last_probe))}` : active);
    const fresh = symbol === "ok" || symbol === "warn";
    text(this.rtt, fresh ? span(peer.round_trip_seconds ?? NaN) : NONE);
    const edge = (name, seconds) => (Number.isFinite(seconds) ? `${name} ≤ ${span(seconds)}` : `${name} ${NONE}`);
    text(this.quantiles, `${edge("p50", peer.round_trip_p50_seconds)}\n${edge("p99", peer.round_trip_p99_seconds)}`);
    this.spark.set(peer.round_trip_history_seconds);
  }

  messages(peer, { sent, dropped, reasons, total: all, totals }) {
    text(this.sent, Number.isFinite(sent) ? `${rate(sent)}/s` : NONE);
    text(this.dropped, Number.isFinite(dropped) ? `${rate(dropped)}/s` : NONE);
    attribute(this.dropped, "class", dropped > 0 ? "alarm" : null);
    const now = reasons.map(([reason, each]) => `${words(reason)} ${rate(each)}/s`);
    const ever = all > 0 ? [`${count(all)} in all`, totals.map(([reason]) => words(reason)).join(",\n")] : [];
    text(this.reasons, (now.length > 0 ? now : ever).join("\n"));
    text(this.queued, peer.outgoing?.queued ? count(total(peer.outgoing.queued)) : NONE);
    const unconfirmed = Object.values(peer.unconfirmed ?? {}).filter(Number.isFinite);
    text(this.unconfirmed, unconfirmed.length > 0 ? count(unconfirmed.reduce((one, other) => one + other)) : NONE);
    const lost = total(peer.lost);
    text(this.lost, lost > 0 ? `${count(lost)} lost` : "");
  }
}

// A snapshot on its way to the peer or from it, while there is one.
class SnapshotBar {
  constructor(way) {
    this.way = way;
    this.bar = make("progress", { max: "1", "aria-label": `snapshot ${way}` });
    this.words = make("small");
    this.element = make("div", { class: "snapshot" }, this.bar, this.words);
    show(this.element, false);
  }

  set(snapshots, { live }) {
    const under = underWay(snapshots?.[this.way]);
    show(this.element, under !== null);
    if (!under) return;
    // Without a value it is one of unknown length.
    attribute(this.bar, "value", Number.isFinite(under.done) ? String(under.done) : null);
    text(this.words, `snapshot ${this.way}: ${live ? "" : "was "}${under.words}`);
  }
}

// The four streams: in and out, msgapp and message.
class Streams {
  constructor() {
    this.none = make("span", {}, NONE);
    this.states = new Map();
    this.list = make("ul");
    for (const way of WAYS) {
      for (const channel of CHANNELS) {
        const state = new State(make("span"));
        this.states.set(`${channel} ${way}`, state);
        this.list.append(make("li", {}, state.element));
      }
    }
    this.element = make("div", {}, this.none, this.list);
  }

  set(streams, { live }) {
    show(this.none, streams.length === 0);
    show(this.list, streams.length > 0);
    for (const [name, state] of this.states) {
      const stream = streams.find(({ channel, direction }) => `${channel} ${direction}` === name);
      state.set(!stream || !live ? "unknown" : stream.up ? "ok" : "bad", name);
      const word = !stream ? "unknown" : stream.up ? "up" : "down";
      attribute(state.element, "title", `${name}: ${live ? word : `was ${word}`}`);
      attribute(state.element, "aria-label", `${name} ${live ? word : `was ${word}`}`);
      attribute(state.element, "role", "img");
    }
  }
}

// Everything about a peer, in words.
class Detail {
  constructor(id) {
    const part = (title) => {
      const list = make("dl");
      return { node: make("div", {}, make("h3", {}, title), list), facts: new Facts(list) };
    };
    this.parts = { link: part("Link"), streams: part("Streams"), out: part("Out"), in: part("In") };
    const cell = make("td", { role: "cell", colspan: "10" }, make("div", { class: "detail" }, ...Object.values(this.parts).map(({ node }) => node)));
    this.element = make("tr", { role: "row", class: "more", id: `more-${id}` }, cell);
  }

  set(peer, context) {
    this.parts.link.facts.set(linkFacts(peer, context));
    this.parts.streams.facts.set(streamFacts(peer, context));
    this.parts.out.facts.set(outFacts(peer));
    this.parts.in.facts.set(inFacts(peer));
  }
}

const listed = (counts) => Object.entries(counts ?? {}).map(([what, number]) => `${words(what)} ${count(number)}`).join(", ") || NONE;

function linkFacts(peer, { now }) {
  return [
    ["URLs", (peer.urls ?? []).join("\n") || NONE],
    ["last probe", ago(now - seconds(peer.last_probe))],
    ["probes", listed(peer.probes)],
    ["appends, p50", span(peer.append_round_trip_p50_seconds ?? NaN)],
    ["appends, p99", span(peer.append_round_trip_p99_seconds ?? NaN)],
    ["incarnation", incarnationWords(peer.incarnation)],
  ];
}

// Which start of the peer is heard.
function incarnationWords(incarnation) {
  switch (incarnation?.state) {
    case "met": return incarnation.told;
    case "unchecked": return "cannot be checked: it sends none";
    case "refused": return `refused: ${incarnation.why} (${incarnation.told}). Remove the member, and add it anew`;
    default: return NONE;
  }
}

function streamFacts(peer, { now }) {
  const facts = (peer.streams ?? []).map(({ channel, direction, up, last_frame: frame }) => {
    const heard = frame ? `last frame ${ago(now - seconds(frame))}` : "no frame yet";
    return [`${channel} ${direction}`, `${up ? "up" : "down"}, ${heard}`];
  });
  const rows = (list, name) => (list ?? []).map((row) => `${name(row)} ${count(row.count)}`).join("\n") || NONE;
  facts.push(["dials", rows(peer.attempts, ({ channel, result }) => `${channel} ${words(result)}`)]);
  facts.push(["losses", rows(peer.losses, ({ channel, direction, reason }) => `${channel} ${direction} ${words(reason)}`)]);
  if ((peer.frame_errors ?? []).length > 0) facts.push(["unreadable", rows(peer.frame_errors, ({ channel, kind }) => `${channel} ${words(kind)}`)]);
  return facts;
}

function outFacts({ outgoing, unconfirmed, lost, snapshots }) {
  if (!outgoing) return [["messages", NONE]];
  return [
    ["offered", count(total(outgoing.offered))],
    ["sent", count(sum(outgoing.sent ?? []))],
    ["dropped", (outgoing.dropped ?? []).map((row) => `${row.type} ${words(row.reason)} ${count(row.count)}`).join("\n") || "0"],
    ["queued", listed(outgoing.queued)],
    ["balance", outgoing.balanced ? "offered = sent + dropped + queued" : "off"],
    ["unconfirmed", unconfirmed ? listed(unconfirmed) : NONE],
    ["lost", lost ? listed(lost) : NONE],
    ["bytes", count(total(outgoing.bytes)) === "0" ? "0" : bytes(total(outgoing.bytes))],
    ["snapshots", snapshotWords(snapshots?.out)],
  ];
}

function inFacts({ incoming, snapshots }) {
  if (!incoming) return [["messages", NONE]];
  return [
    ["received", count(sum(incoming.received ?? []))],
    ["processed", count(total(incoming.processed))],
    ["rejected", (incoming.rejected ?? []).map((row) => `${row.type} ${words(row.reason)} ${count(row.count)}`).join("\n") || "0"],
    ["waiting", count(incoming.waiting)],
    ["balance", incoming.balanced ? "received = processed + rejected + waiting" : "off"],
    ["bytes", bytes(total(incoming.bytes))],
    ["snapshots", snapshotWords(snapshots?.in)],
  ];
}
