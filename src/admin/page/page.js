// The page: asks, keeps what was answered, draws it, and says when it is old.

import { age, clock, count, NONE, seconds, several, short, words } from "./format.js";
import { byId, Facts, show, State, text } from "./dom.js";
import { Events } from "./events.js";
import { Matrix } from "./matrix.js";
import { ordered, Rates, verdict } from "./model.js";
import { Peers } from "./peers.js";
import { Poll } from "./poll.js";

// An answer that is older than this is old, and looks so; where we ask less often, one that came this much too late.
const OLD = 3;
const OVERDUE = 2;
// Who is no member, and only watches.
const WATCHER = /^0*$/;

class Page {
  constructor() {
    this.answer = null;
    this.rates = new Rates();
    this.rate = new Map();
    this.peers = new Peers(document);
    this.matrix = new Matrix(document);
    this.events = new Events(document);
    this.facts = new Facts(byId("facts"));
    this.ready = new State(byId("ready"));
    this.reached = new Map();
    this.error = null;
    this.eventless = false;
    this.poll = new Poll((signal) => this.ask(signal), (error) => this.failed(error));
    // Nothing is drawn twice a second for it: it only sees to it that what gets old is drawn so.
    setInterval(() => this.aged(), 500);
    this.poll.now();
  }

  async ask(signal) {
    const query = this.events.after === null ? "" : `?after=${this.events.after}`;
    // A member that keeps no events, or has no room for the question now, has answered all the same.
    const asked = this.eventless ? null : get(`api/events${query}`, signal).catch((error) => this.without(error));
    const answer = await get("api/peers", signal);
    const anew = this.answer !== null && this.answer.started !== answer.started;
    if (anew) {
      this.events.reset();
      this.eventless = false;
    }
    this.rate = this.rates.add(answer);
    Object.assign(this, { answer, at: seconds(answer.time), heard: performance.now(), error: null });
    const events = await asked;
    // What was asked for before the member began anew is not what comes after its first events.
    if (events && !anew) this.events.add(events);
    this.draw();
    return (answer.peers ?? []).some((peer) => verdict(peer, answer.probe, this.at).late);
  }

  without(error) {
    this.eventless = error.status === 404;
    return null;
  }

  failed(error) {
    this.error = error;
    this.aged();
  }

  // Seconds since the last answer; the server's clock goes on from there.
  silence() {
    return (performance.now() - this.heard) / 1e3;
  }

  aged() {
    if (document.hidden) return;
    if (!this.answer) {
      if (this.error) this.banner(`No answer from this member: ${reason(this.error)}. Nothing is known yet.`);
      return;
    }
    if (!this.live()) this.draw();
  }

  live() {
    return this.silence() <= Math.max(OLD, this.error ? 0 : this.poll.due + OVERDUE);
  }

  draw() {
    const { answer, rate, at } = this;
    const silence = this.silence();
    // What was said is judged as of when it was said. Ages go on, by the server's clock.
    const moment = { at, now: at + silence, live: this.live() };
    document.body.dataset.state = moment.live ? "live" : "old";
    this.banner(moment.live ? null : `No answer from this member for ${age(silence)}${this.error ? `: ${reason(this.error)}` : ""}. Everything below is as of ${clock(at)}.`);
    this.header(moment);
    this.peers.draw(answer, rate, moment);
    this.matrix.draw(answer, moment);
    const names = (answer.peers ?? []).map((peer) => [peer.id, peer.name]);
    this.events.draw(new Map([[answer.local, answer.name], ...names]), moment.now);
    if (moment.live) this.speak();
  }

  banner(words) {
    show(byId("banner"), words !== null);
    text(byId("banner"), words ?? "");
  }

  header({ at, now, live }) {
    const { name, local, cluster, version, started, raft, checks } = this.answer;
    const title = name || (WATCHER.test(local) ? "rafthttp" : local);
    text(byId("name"), title);
    text(byId("local"), name && !WATCHER.test(local) ? local : "");
    const role = raft?.role ? words(raft.role) : "";
    text(byId("role"), live ? role : `was ${role}`);
    show(byId("role"), role !== "");
    const failing = (checks ?? []).filter(({ failure }) => failure);
    show(byId("ready"), Boolean(checks));
    if (failing.length > 0) this.ready.set(live ? "bad" : "unknown", `${live ? "not" : "was not"} ready: ${failing.map(({ name, failure }) => `${words(name)}: ${failure}`).join("; ")}`);
    else this.ready.set(live ? "ok" : "unknown", live ? "ready" : "was ready");
    this.facts.set([
      raft && ["leader", raft.leader ? this.named(raft.leader) : "nobody"],
      raft && ["term", count(raft.term)],
      raft && ["committed", count(raft.commit)],
      raft && ["applied", count(raft.applied)],
      ["cluster", cluster ?? NONE],
      started && ["up", age(now - seconds(started))],
      ["as of", clock(at)],
    ]);
    text(byId("version"), version ? `rafthttp ${version}` : "rafthttp");
    const states = (this.answer.peers ?? []).map((peer) => verdict(peer, this.answer.probe, at).symbol);
    const bad = states.filter((symbol) => symbol === "bad").length;
    const sign = !live ? "? " : bad > 0 || failing.length > 0 ? "! " : "";
    document.title = `${sign}${short(title)}${role ? ` · ${role}` : ""} · ${states.length - bad}/${states.length}`;
  }

  named(id) {
    const { local, name, peers } = this.answer;
    if (id === local) return `${short(name || local)} (this member)`;
    return short((peers ?? []).find((peer) => peer.id === id)?.name || id);
  }

  // Only what changes between reachable and not is read aloud.
  speak() {
    const changes = [];
    const { peers = [], probe } = this.answer;
    for (const peer of ordered(peers, probe, this.at, this.rate)) {
      const before = this.reached.get(peer.id);
      if (before !== undefined && peer.reachable !== null && before !== peer.reachable) changes.push([short(peer.name || peer.id), peer.reachable]);
      if (peer.reachable !== null) this.reached.set(peer.id, peer.reachable);
    }
    if (changes.length === 0) return;
    const said = changes.slice(0, 3).map(([name, reachable]) => `${name} is ${reachable ? "reachable again" : "unreachable"}`);
    const more = changes.length > 3 ? [`and ${several(changes.length - 3, "more change")}`] : [];
    text(byId("spoken"), [...said, ...more].join(", "));
  }
}

async function get(path, signal) {
  const answer = await fetch(path, { signal, cache: "no-store", headers: { accept: "application/json" } });
  if (!answer.ok) throw Object.assign(new Error(`it answered ${answer.status}`), { status: answer.status });
  return answer.json();
}

// Browsers word a failed fetch each in its own way, and none so that it helps.
function reason(error) {
  if (error instanceof SyntaxError) return "its answer is not JSON";
  if (error instanceof TypeError) return "it cannot be reached";
  return error.message;
}

new Page();
