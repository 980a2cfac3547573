// What the page makes of answers, without a browser and without a clock.

import assert from "node:assert/strict";

import { age, bytes, count, rate, short, signed, span } from "../../src/admin/page/format.js";
import { links, MATRIX, matrix, ordered, Rates, snapshotWords, underWay, verdict } from "../../src/admin/page/model.js";
import { check, close } from "./checks.mjs";

const at = (second) => new Date(Date.UTC(2026, 0, 1) + second * 1e3).toISOString();
const now = Date.UTC(2026, 0, 1) / 1e3;
const probe = { interval_seconds: 1, timeout_seconds: 0.7 };

const peer = (id, more = {}) => ({ id, name: `n${id}`, reachable: true, last_probe: at(-0.5), ...more });
const counted = (sent, dropped = {}) => ({
  outgoing: { sent: [{ count: sent }], dropped: Object.entries(dropped).map(([reason, count]) => ({ reason, count })) },
});
const answer = (second, peers, started = at(-60)) => ({ time: at(second), started, peers });

await check("rates are over the last seconds, and unknown at first", () => {
  const rates = new Rates();
  assert.ok(Number.isNaN(rates.add(answer(0, [peer("a", counted(100))])).get("a").sent));
  assert.equal(rates.add(answer(1, [peer("a", counted(160))])).get("a").sent, 60);
  for (let second = 2; second <= 20; second++) rates.add(answer(second, [peer("a", counted(160))]));
  const quiet = rates.add(answer(21, [peer("a", counted(160))])).get("a");
  assert.deepEqual([quiet.sent, quiet.dropped, quiet.total], [0, 0, 0]);
});

await check("drops have their reasons, the most frequent first", () => {
  const rates = new Rates();
  rates.add(answer(0, [peer("a", counted(0, { stream_lost: 5 }))]));
  const { dropped, reasons, total } = rates.add(answer(2, [peer("a", counted(0, { stream_lost: 7, queue_full: 6 }))])).get("a");
  assert.deepEqual({ dropped, reasons, total }, { dropped: 4, reasons: [["queue_full", 3], ["stream_lost", 1]], total: 13 });
});

await check("counters that began anew make no rate, neither below zero nor beyond measure", () => {
  const rates = new Rates();
  rates.add(answer(0, [peer("a", counted(1000))]));
  assert.ok(Number.isNaN(rates.add(answer(1, [peer("a", counted(10))])).get("a").sent));
  const restarted = new Rates();
  restarted.add(answer(0, [peer("a", counted(10))]));
  assert.ok(Number.isNaN(restarted.add(answer(1, [peer("a", counted(5000))], at(0.5))).get("a").sent));
});

await check("a peer without a ledger has no rates", () => {
  const rates = new Rates();
  rates.add(answer(0, [peer("a")]));
  const { sent, dropped, total } = rates.add(answer(1, [peer("a")])).get("a");
  assert.ok([sent, dropped, total].every(Number.isNaN));
});

await check("what is not known is not reachable, and what is late is in doubt", () => {
  const symbol = (more, asked = probe) => verdict(peer("a", more), asked, now).symbol;
  assert.equal(symbol({}), "ok");
  assert.equal(symbol({ reachable: false }), "bad");
  assert.equal(symbol({ reachable: null, last_probe: null }), "unknown");
  assert.equal(symbol({ last_probe: at(-1.3) }), "warn");
  assert.equal(symbol({ last_probe: at(-10) }), "unknown");
  assert.equal(symbol({ last_probe: at(-10) }, null), "ok", "nothing is late where nothing probes");
});

await check("who is refused is bad news, whether it can be reached or not", () => {
  const refused = { incarnation: { state: "refused" } };
  const word = (more) => verdict(peer("a", more), probe, now).word;
  assert.deepEqual([word(refused), word({ ...refused, reachable: false })], ["refused", "refused"]);
  assert.equal(word({ incarnation: { state: "met" } }), "reachable");
  assert.deepEqual(ordered([peer("1"), peer("2", refused)], probe, now, new Map()).map(({ id }) => id), ["2", "1"]);
});

await check("the worst peers come first, then by name", () => {
  const down = { streams: [{ up: false }] };
  const peers = [peer("10"), peer("2"), peer("3", down), peer("4", { reachable: null }), peer("5", { reachable: false })];
  assert.deepEqual(ordered(peers, probe, now, new Map()).map(({ id }) => id), ["5", "4", "3", "2", "10"]);
});

const view = (...peers) => ({ time: at(-0.4), peers: peers.map(([id, reachable, age = 0.4]) => ({ id, reachable, round_trip_seconds: reachable ? 0.001 : null, age_seconds: age })) });
const cluster = (b, c) => ({ local: "a", name: "na", probe, peers: [peer("b", b), peer("c", c)] });

await check("each member's row is what it says of itself", () => {
  const seen = matrix(cluster({ view: view(["a", true], ["c", false]) }, { view: view(["a", true], ["b", true]) }), now);
  const row = (from) => ["a", "b", "c"].map((to) => seen.cell(from, to).kind);
  assert.deepEqual([row("a"), row("b"), row("c")], [["self", "ok", "ok"], ["ok", "self", "bad"], ["ok", "ok", "self"]]);
  const { ok, bad, unknown } = links(seen);
  assert.deepEqual([ok, bad.length, unknown], [5, 1, 0]);
});

await check("a member that cannot be asked has an unknown row, not an old one", () => {
  const unasked = [{ reachable: false, view: view(["a", true]) }, { view: null }, { view: { ...view(["a", true]), time: at(-60) } }];
  for (const member of unasked) {
    const seen = matrix(cluster(member, {}), now);
    assert.equal(seen.cell("b", "a").kind, "unknown", JSON.stringify(member));
    assert.equal(seen.members.find(({ id }) => id === "b").asked, false);
  }
});

await check("what a member measured long ago is old, and counts as unknown", () => {
  const seen = matrix(cluster({ view: view(["a", true, 60], ["c", true]) }, {}), now);
  assert.equal(seen.cell("b", "a").old, true);
  assert.equal(links(seen).unknown, 3);
});

await check("remotes are no part of the cluster, and who only others know is", () => {
  const answered = cluster({ view: view(["a", true], ["d", true]) }, { remote: true });
  assert.deepEqual(matrix(answered, now).members.map(({ id }) => id).sort(), ["a", "b", "d"]);
});

await check("a large cluster's matrix holds this member and those that most is wrong with", () => {
  const peers = Array.from({ length: 200 }, (_, place) => peer(`p${place}`, { reachable: place !== 150, view: view(["a", true]) }));
  const { members, left } = matrix({ local: "a", name: "na", probe, peers }, now);
  assert.equal(members.length, MATRIX);
  assert.equal(left, 201 - MATRIX);
  assert.ok(members.some(({ own }) => own) && members.some(({ id }) => id === "p150"));
});

await check("a snapshot under way says how far it is, how fast it goes, and how long it takes yet", () => {
  const snapshot = (more) => underWay({ ok: 1, failed: 0, in_flight: 1, progress_ratio: null, bytes_left: null, bytes_per_second: null, seconds_left: null, ...more });
  assert.equal(snapshot({ in_flight: 0, progress_ratio: 0.5 }), null);
  assert.equal(underWay(undefined), null, "who only watches knows none");
  const half = snapshot({ progress_ratio: 0.459, bytes_left: 1 << 30, bytes_per_second: 3 << 20, seconds_left: 341.3 });
  assert.deepEqual(half, { done: 0.459, words: "45 %, 3.00 MiB/s, 5 min left" });
  assert.deepEqual(snapshot({ progress_ratio: 0.45, bytes_per_second: 0 }).words, "45 %, stands still");
  assert.deepEqual(snapshot({ progress_ratio: 1, bytes_per_second: 0 }).words, "all there, being taken in");
  assert.deepEqual(snapshot({ progress_ratio: 0 }).words, "0 %");
  const unmeasured = snapshot({ bytes_per_second: 2048 });
  assert.ok(Number.isNaN(unmeasured.done) && unmeasured.words === "2.00 KiB/s");
  assert.equal(snapshot({}).words, "under way");
});

await check("what became of snapshots says what was spared, and why some started over", () => {
  assert.equal(snapshotWords(undefined), "–");
  assert.equal(snapshotWords({ ok: 2, failed: 0, in_flight: 0, broken_off: 0, resumed_bytes: 0, resent_bytes: 0, restarts: [] }), "2 ok\n0 failed");
  const broken = { ok: 1, failed: 0, broken_off: 3, in_flight: 1, progress_ratio: 0.5, bytes_left: 1 << 20, bytes_per_second: 1024, seconds_left: 1024,
    resumed_bytes: 3 << 20, resent_bytes: 2048, restarts: [{ reason: "another", count: 1 }, { reason: "checksum", count: 2 }] };
  assert.equal(snapshotWords(broken), "1 ok\n0 failed\n3 broken off\n1 under way: 50 %, 1.00 KiB/s, 17 min left, 1.00 MiB to come\n" +
    "3.00 MiB did not have to be sent again, 2.00 KiB had to\nstarted over: another 1, checksum 2");
});

await check("numbers read as people read them", () => {
  assert.deepEqual([span(0.00021), span(0.0123), span(1.2), span(NaN)], ["0.21 ms", "12.3 ms", "1.20 s", "–"]);
  assert.deepEqual([signed(-0.000031), signed(0)], ["−0.03 ms", "+0 ms"]);
  assert.deepEqual([age(0.44), age(75), age(300), age(-3), age(8e5)], ["0.4 s", "75 s", "5 min", "0.0 s", "9 d"]);
  assert.deepEqual([count(1234), count(12_345_678), rate(0.25), rate(1234.5), bytes(1536)], ["1,234", "12.3 M", "0.3", "1,235", "1.50 KiB"]);
});

await check("a name that turns the text around, or has no end, is tamed", () => {
  assert.equal(short("n\u202e1\u0000\n"), "n1");
  assert.equal([...short("🦀".repeat(99), 10)].length, 10);
});

close("model");
