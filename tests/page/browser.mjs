// The page of real members in a real browser.

import assert from "node:assert/strict";

import { all, check, close, until } from "./checks.mjs";
import { Cluster } from "./members.mjs";
import { open, PHONE, Window } from "./window.mjs";

// Interval and time-out of a probe, the former a tenth longer at times: what the contract calls visible.
const VISIBLE = 1.8;
// What a page adds to it: it asks each second, four times a second once a probe is late; and the machine may be busy.
const ALLOWANCE = 1.5;

// A name that would be markup, were it not text.
const NAMES = ["n1", "n2", "<u>n3</u>"];
const [, , HOSTILE] = NAMES;

const browser = await open();
const cluster = await Cluster.start(NAMES);
const [watched, other, third] = cluster.members;
const quiet = cluster.load(watched);
const window = await Window.open(browser, watched.metrics);
const phone = await Window.open(browser, watched.metrics, { size: PHONE, scheme: "dark" });

const link = async (name) => (await window.look()).peers[name]?.Link ?? "";
const row = (look, name) => look.matrix.find((row) => row.name === name);
const kinds = (look, name) => row(look, name).cells.map(({ kind }) => kind);
const kind = (look, from, to) => kinds(look, from)[look.matrix.findIndex(({ name }) => name === to)];

async function healthy() {
  await until("all are reachable, and say whom they reach", async () => {
    const look = await window.look();
    const reachable = [other, third].every(({ name }) => look.peers[name]?.Link.startsWith("reachable"));
    return reachable && look.links === "all 6 links answer";
  }, 60);
}

await check("the page shows who the member is, and how its peers do", async () => {
  await healthy();
  const api = await watched.api();
  const look = await window.look();
  assert.equal(look.name, "n1");
  assert.equal(look.role, api.raft.role);
  assert.equal(look.ready, "ready");
  assert.equal(look.facts.term, String(api.raft.term));
  assert.equal(look.facts.cluster, api.cluster);
  assert.match(look.facts.leader, api.raft.leader === api.local ? /^n1 \(this member\)$/ : /n[23]/);
  assert.equal(look.sum, "2 of 2 peers reachable, ledger balanced");
  for (const name of [other.name, third.name]) {
    const peer = look.peers[name];
    assert.match(peer["Round trip"], /^[\d.]+ m?s\np50 ≤ [\d.]+ m?s\np99 ≤ [\d.]+ m?s$/);
    assert.match(peer.Clock, /^[+−][\d.]+ m?s$/);
    assert.deepEqual(peer.Streams.split(/\n+/).sort(), ["message in", "message out", "msgapp in", "msgapp out"]);
    assert.match(peer.Queued, /^\d+$/);
    assert.match(peer.Unconfirmed, /^\d+/);
  }
  const streams = await window.page.locator("#peers tr.peer .streams .state.ok").count();
  assert.equal(streams, 8, "all four streams of both peers are up");
  await until("messages a second are shown", async () => {
    const { peers } = await window.look();
    return [other, third].some(({ name }) => parseFloat(peers[name].Sent) > 0);
  });
  assert.ok(look.events.length > 0 && look.events.some((event) => /stream attached/.test(event)), `${look.events}`);
});

await check("a frozen peer is shown within the visible time", async () => {
  const start = performance.now();
  third.freeze();
  await until("it is unreachable", async () => (await link(HOSTILE)).startsWith("unreachable"), 30);
  const took = (performance.now() - start) / 1e3;
  assert.ok(took <= VISIBLE + ALLOWANCE, `${took.toFixed(2)} s`);
  const look = await window.look();
  assert.match(look.peers[HOSTILE]["Round trip"], /^–\n/, "its last round trip is not shown as if it were new");
  assert.equal(look.order[0], HOSTILE, "the worst comes first");
  assert.match(look.sum, /^1 of 2 peers reachable, 1 unreachable/);
  assert.ok(look.title.startsWith("! "), look.title);
  assert.equal(look.spoken, `${HOSTILE} is unreachable`);
  return `after ${took.toFixed(2)} s`;
});

await check("the matrix shows whom nobody reaches, and an unknown row of who cannot be asked", async () => {
  await until("the others say that they do not reach it", async () => {
    const look = await window.look();
    return kind(look, "n1", HOSTILE) === "bad" && kind(look, "n2", HOSTILE) === "bad";
  });
  const look = await window.look();
  const names = look.matrix.map(({ name }) => name);
  assert.deepEqual(kinds(look, HOSTILE).filter((kind) => kind !== "self"), ["unknown", "unknown"]);
  assert.equal(row(look, HOSTILE).said, "cannot be asked");
  assert.deepEqual([...names].sort(), [...NAMES].sort());
  assert.match(look.links, /^2 of 6 links answer; 2 do not: .*; 2 unknown$/);
});

await check("on a phone nothing is beside the window, with everything about a peer open", async () => {
  // It asks at moments of its own, so it may know later than the other window; until then the first row is another's.
  await until("the phone says that it is unreachable", async () => (await phone.look()).peers[HOSTILE].Link.startsWith("unreachable"), VISIBLE + ALLOWANCE);
  assert.equal((await phone.look()).order[0], HOSTILE, "the worst comes first");
  await phone.page.locator("button.more").first().click();
  await phone.fits();
  await phone.page.setViewportSize({ width: 320, height: 640 });
  await phone.fits();
  await phone.page.setViewportSize(PHONE);
  // By the whole name: a row's text runs its cells together, and "down" before "2.0/s" has "n2" in it too.
  const named = { has: phone.page.getByText(other.name, { exact: true }) };
  assert.equal(await phone.page.getByRole("table", { name: "Peers" }).getByRole("row").filter(named).count(), 1, "a card is still a row");
});

await check("texts can be read, in the light and in the dark", async () => {
  await window.legible();
  await phone.legible();
});

await check("a peer that is thawed recovers", async () => {
  third.thaw();
  await healthy();
  const look = await window.look();
  assert.equal(look.spoken, `${HOSTILE} is reachable again`);
  assert.ok(look.events.some((event) => event.includes("peer unreachable")) && look.events.some((event) => event.includes("peer reachable")), `${look.events}`);
});

await check("a snapshot under way has a bar, and the time that is left", async () => {
  const real = await watched.api();
  const api = (route) => {
    const answer = { ...structuredClone(real), time: new Date().toISOString() };
    for (const peer of answer.peers) {
      peer.last_probe = answer.time;
      if (peer.name !== other.name) continue;
      peer.snapshots.out = { ...peer.snapshots.out, in_flight: 1, progress_ratio: 0.25, bytes_left: 3 << 30, bytes_per_second: 20 << 20, seconds_left: 154 };
      peer.snapshots.in = { ...peer.snapshots.in, in_flight: 1 };
    }
    return route.fulfill({ json: answer });
  };
  for (const size of [undefined, PHONE]) {
    const own = await Window.open(browser, watched.metrics, { size, api });
    const said = /snapshot in: under way\s+snapshot out: 25 %, 20.0 MiB\/s, 2 min left/;
    await until("it is said", async () => said.test((await own.look()).peers[other.name]?.Link ?? ""));
    const bars = own.page.getByRole("progressbar");
    assert.deepEqual([await bars.count(), await bars.nth(1).getAttribute("value"), await bars.nth(0).getAttribute("value")], [2, "0.25", null]);
    assert.equal(await own.page.getByRole("progressbar", { name: "snapshot out" }).count(), 1);
    assert.doesNotMatch((await own.look()).peers[HOSTILE].Link, /snapshot/, "the other peer has none");
    await own.page.locator("button.more").first().click();
    await own.fits();
    await own.legible();
    await own.close();
  }
});

await check("a name that would be markup is text", async () => {
  assert.equal(await window.page.locator("u").count(), 0);
  assert.ok((await window.look()).peers[HOSTILE]);
});

if (all) await (await import("./more.mjs")).more({ browser, cluster, window, healthy, link });

await check("nothing was asked of others, and nothing broke", async () => {
  // The member that they watch was killed once, with all of it.
  await window.close({ unreachable: all });
  await phone.close({ unreachable: all });
});

await quiet();
await cluster.stop();
await browser.close();
close("browser");
