// What the answers of /api/peers mean: rates, verdicts, the order of peers, the matrix. No document here, and no clock but
// the server's.

import { age, bytes, count, NONE, seconds, words } from "./format.js";

// Rates are over this many seconds, or as many as are known.
const WINDOW = 5;
// Members that a matrix shows: more are a wall of squares that nobody reads.
export const MATRIX = 25;
// How late a probe may be before it is in doubt: the interval varies by a tenth, and the rest is the machine's.
const LATE = 1.15;
const DEFAULT_PROBE = { interval_seconds: 1, timeout_seconds: 0.7 };

// What was counted at some time: enough of it to tell what happens in a second.
function counted(peer) {
  const outgoing = peer.outgoing ?? {};
  const dropped = new Map();
  for (const { reason, count } of outgoing.dropped ?? []) dropped.set(reason, (dropped.get(reason) ?? 0) + count);
  return { sent: outgoing.sent ? sum(outgoing.sent) : NaN, dropped, has: Boolean(outgoing.dropped) };
}

// Counts become rates here. Counters that fall, or a member that started anew, begin anew.
export class Rates {
  constructor() {
    this.started = undefined;
    this.samples = [];
  }

  // Takes an answer; gives what happens in a second, by peer.
  add(answer) {
    const at = seconds(answer.time);
    if (answer.started !== this.started) this.samples = [];
    this.started = answer.started;
    const peers = new Map((answer.peers ?? []).map((peer) => [peer.id, counted(peer)]));
    const last = this.samples.at(-1);
    if (last && at < last.at) this.samples = [];
    if (!last || at > last.at) this.samples.push({ at, peers });
    while (this.samples.length > 2 && this.samples[1].at <= at - WINDOW) this.samples.shift();
    return new Map([...peers].map(([id, now]) => [id, this.of(id, now, at)]));
  }

  of(id, now, at) {
    const total = [...now.dropped.values()].reduce((all, count) => all + count, 0);
    const unknown = { sent: NaN, dropped: NaN, reasons: [], total: now.has ? total : NaN, totals: [...now.dropped] };
    const first = this.samples.find((sample) => sample.peers.has(id));
    if (!first || !(at > first.at)) return unknown;
    const before = first.peers.get(id);
    const time = at - first.at;
    const reasons = [...now.dropped]
      .map(([reason, count]) => [reason, (count - (before.dropped.get(reason) ?? 0)) / time])
      .filter(([, rate]) => rate !== 0)
      .sort((one, other) => other[1] - one[1]);
    const sent = (now.sent - before.sent) / time;
    if (sent < 0 || reasons.some(([, rate]) => rate < 0)) return unknown;
    return { ...unknown, sent, dropped: now.has ? reasons.reduce((all, [, rate]) => all + rate, 0) : NaN, reasons };
  }
}

export const sum = (rows) => rows.reduce((all, { count }) => all + count, 0);

export const total = (counts) => Object.values(counts ?? {}).reduce((all, count) => all + count, 0);

// What is to be said of the link to a peer. `quiet`: seconds since its last probe ended; `late`: longer than a healthy one
// takes.
export function verdict(peer, probe, now) {
  const quiet = now - seconds(peer.last_probe);
  const { interval_seconds: interval, timeout_seconds: timeout } = probe ?? DEFAULT_PROBE;
  const late = Boolean(probe) && quiet > interval * LATE;
  // A probe that ought to have ended long ago: its outcome is old, whatever it was.
  const old = Boolean(probe) && quiet > interval * LATE + timeout + interval;
  // Whoever answers there is not the member that was met: that it can be reached is the lesser news.
  if (peer.incarnation?.state === "refused") return { symbol: "bad", word: "refused", quiet, late, old };
  if (peer.reachable === false) return { symbol: "bad", word: "unreachable", quiet, late, old };
  if (peer.reachable !== true) return { symbol: "unknown", word: "unknown", quiet, late, old };
  if (old) return { symbol: "unknown", word: "not probed", quiet, late, old };
  return { symbol: late ? "warn" : "ok", word: late ? "no answer yet" : "reachable", quiet, late, old };
}

// A snapshot under way: how far it is, 0 to 1 or NaN, and the same in words, with how fast it goes and how long it takes
// yet. Null: there is none.
export function underWay(snapshots) {
  if (!(snapshots?.in_flight > 0)) return null;
  const { progress_ratio: ratio, bytes_per_second: passing, seconds_left: left } = snapshots;
  const done = ratio ?? NaN;
  const parts = [];
  if (done < 1) parts.push(`${Math.floor(done * 100)} %`);
  // What has all passed is not done: its receiver syncs it, and takes it in.
  if (done === 1) parts.push("all there, being taken in");
  else if (passing === 0) parts.push("stands still");
  else if (Number.isFinite(passing)) parts.push(`${bytes(passing)}/s`);
  if (done < 1 && Number.isFinite(left)) parts.push(`${age(left)} left`);
  return { done, words: parts.join(", ") || "under way" };
}

// The snapshots of one direction in words: how they ended, how far the one under way is, what did not have to be sent again
// after a connection broke, and why some started over.
export function snapshotWords(snapshots) {
  if (!snapshots) return NONE;
  const { in_flight: flying, bytes_left: left, resumed_bytes: resumed, resent_bytes: resent, restarts } = snapshots;
  const ended = ["ok", "failed", "broken_off"].filter((how) => how !== "broken_off" || snapshots[how] > 0);
  const parts = ended.map((how) => `${count(snapshots[how])} ${words(how)}`);
  const under = underWay(snapshots);
  if (under) parts.push(`${count(flying)} under way: ${under.words}${left > 0 ? `, ${bytes(left)} to come` : ""}`);
  if (resumed > 0) parts.push(`${bytes(resumed)} did not have to be sent again${resent > 0 ? `, ${bytes(resent)} had to` : ""}`);
  const again = (restarts ?? []).map(({ reason, count: times }) => `${words(reason)} ${count(times)}`);
  if (again.length > 0) parts.push(`started over: ${again.join(", ")}`);
  return parts.join("\n");
}

const down = (peer) => (peer.streams ?? []).some(({ up }) => !up);

// Worst first, then by name: peers change place when their state changes, and not with every number.
export function ordered(peers, probe, now, rates) {
  const rank = (peer) => {
    const { symbol } = verdict(peer, probe, now);
    if (symbol === "bad") return 0;
    if (symbol === "unknown") return 1;
    if (down(peer)) return 2;
    return rates.get(peer.id)?.dropped > 0 ? 3 : 4;
  };
  return peers
    .map((peer) => ({ peer, rank: rank(peer), name: peer.name || peer.id }))
    .sort((one, other) => one.rank - other.rank || compare(one.name, other.name) || compare(one.peer.id, other.peer.id))
    .map(({ peer }) => peer);
}

const collator = new Intl.Collator("en", { numeric: true });
const compare = (one, other) => collator.compare(one, other);

// Each member's view of each other: its own row from what it measured, the others' from what they answered to probes.
// A cell is { kind: "self" | "ok" | "bad" | "unknown" | "none", rtt, age, old }.
export function matrix(answer, now) {
  const peers = (answer.peers ?? []).filter((peer) => !peer.remote);
  const probe = answer.probe ?? DEFAULT_PROBE;
  const old = 3 * (probe.interval_seconds + probe.timeout_seconds);
  const views = new Map([[answer.local, { at: now, cells: new Map(peers.map((peer) => [peer.id, own(peer, now, old)])) }]]);
  for (const peer of peers) {
    const at = seconds(peer.view?.time);
    if (!peer.view || peer.reachable === false || now - at > old) continue;
    const cells = (peer.view.peers ?? []).map((cell) => [cell.id, seen(cell, now - at, old)]);
    views.set(peer.id, { at, cells: new Map(cells) });
  }
  const known = new Map([[answer.local, { name: answer.name }], ...peers.map((peer) => [peer.id, peer])]);
  for (const { cells } of views.values()) for (const id of cells.keys()) if (!known.has(id)) known.set(id, {});
  const member = ([id, { name, reachable }]) => ({ id, name: name || id, reachable, asked: views.has(id), own: id === answer.local });
  const members = [...known].map(member);
  members.sort((one, other) => compare(one.name, other.name) || compare(one.id, other.id));
  const cell = (from, to) => {
    if (from === to) return { kind: "self" };
    const view = views.get(from);
    return view ? (view.cells.get(to) ?? { kind: "none" }) : { kind: "unknown" };
  };
  return { members: most(members, cell), left: Math.max(0, members.length - MATRIX), views: views.size, cell };
}

function own(peer, now, old) {
  return judged(peer.reachable, peer.round_trip_seconds, now - seconds(peer.last_probe), old);
}

function seen(cell, since, old) {
  return judged(cell.reachable, cell.round_trip_seconds, (cell.age_seconds ?? NaN) + since, old);
}

function judged(reachable, rtt, age, old) {
  const kind = reachable === true ? "ok" : reachable === false ? "bad" : "unknown";
  return { kind, rtt: rtt ?? NaN, age, old: age > old };
}

// This member, and of the others those that most is wrong with.
function most(members, cell) {
  if (members.length <= MATRIX) return members;
  const wrong = new Map(members.map(({ id, asked, own }) => {
    const cells = members.flatMap((other) => [cell(id, other.id), cell(other.id, id)]);
    return [id, own ? Infinity : cells.filter(({ kind }) => kind === "bad").length + (asked ? 0 : 0.5)];
  }));
  const kept = [...members].sort((one, other) => wrong.get(other.id) - wrong.get(one.id)).slice(0, MATRIX);
  return members.filter((member) => kept.includes(member));
}

// The links of a matrix in words.
export function links({ members, cell }) {
  const found = { ok: 0, bad: [], unknown: 0 };
  for (const from of members) {
    for (const to of members) {
      const { kind, old } = cell(from.id, to.id);
      if (kind === "bad") found.bad.push([from, to]);
      else if (kind === "ok" && !old) found.ok += 1;
      else if (kind === "unknown" || kind === "ok") found.unknown += 1;
    }
  }
  return found;
}
