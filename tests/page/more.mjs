// What `make test-all` looks at beyond a frozen peer.

import assert from "node:assert/strict";

import { check, until } from "./checks.mjs";
import { says } from "./members.mjs";
import { PHONE, Window } from "./window.mjs";

const HOSTILE = `"><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>\u202egnp.\u0007`;

export async function more({ browser, cluster, window, healthy, link }) {
  const [watched, other] = cluster.members;

  await check("a member that is killed is shown, and so is its return", async () => {
    await other.kill();
    await until("it is unreachable", async () => (await link(other.name)).startsWith("unreachable"), 10);
    await until("its streams are down", async () => (await window.page.locator("#peers tr.peer[data-link=bad] .streams .state.bad").count()) > 0);
    assert.notEqual((await window.look()).peers[other.name]["Last error"], "–");
    cluster.restart(other);
    await healthy();
  });

  await check("a member that does not answer is old, and looks so", async () => {
    const own = await Window.open(browser, watched.metrics);
    await until("it is drawn", async () => (await own.look()).state === "live");
    await watched.frozen(async () => {
      const look = await until("it is old", async () => {
        const look = await own.look();
        return look.state === "old" && look;
      }, 15);
      assert.match(look.banner, /^No answer from this member for [\d.]+ s.*Everything below is as of \d\d:\d\d:\d\d/);
      assert.ok(Object.values(look.peers).every(({ Link }) => /^was /.test(Link) && /probed [\d.]+ s ago/.test(Link)), JSON.stringify(look.peers));
      assert.match(look.role, /^was /);
      assert.match(look.sum, /^as last heard: /);
      assert.ok(look.title.startsWith("? "), look.title);
      assert.ok(look.matrix.flatMap(({ cells }) => cells).filter(({ kind }) => kind.includes("ok")).every(({ kind }) => kind.includes("old")));
      assert.equal(await own.page.locator("#peers .state:is(.ok, .bad)").count(), 0, "nothing is said to be up or down");
      await own.legible();
    });
    await until("it is live again", async () => (await own.look()).state === "live", 30);
    await until("no banner", async () => (await own.look()).banner === null);
    await own.close({ unreachable: true });
  });

  await check("a member that ended is told apart, and one that comes back begins anew", async () => {
    const own = await Window.open(browser, watched.metrics);
    await until("there are events", async () => (await own.look()).events.length > 0);
    await watched.kill();
    await until("it cannot be reached", async () => /it cannot be reached/.test((await own.look()).banner ?? ""), 20);
    cluster.restart(watched);
    await until("it is live again", async () => (await own.look()).state === "live", 60);
    for (let turn = 0; turn < 20; turn++) {
      const { peers } = await own.look();
      for (const { Sent, Dropped } of Object.values(peers)) assert.ok(!/-|−/.test(Sent + Dropped), `${Sent} ${Dropped}`);
      await own.page.waitForTimeout(100);
    }
    await until("its events are those since then", async () => {
      const { events } = await own.look();
      return events.length > 0 && events.every((event) => !event.includes("peer removed"));
    });
    await own.close({ unreachable: true });
    await healthy();
  });

  const real = await watched.api();
  const answering = (change) => async (route) => {
    const answer = structuredClone(real);
    answer.time = new Date().toISOString();
    for (const peer of answer.peers) peer.last_probe = answer.time;
    await route.fulfill({ json: change(answer) ?? answer });
  };
  const drawn = (own) => until("it is drawn", async () => (await own.look()).state === "live");

  await check("whatever a member says is text", async () => {
    const hostile = (value) => {
      if (typeof value === "string" && !/^\d{4}-/.test(value)) return HOSTILE + value;
      if (Array.isArray(value)) return value.map(hostile);
      if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, hostile(inner)]));
      return value;
    };
    for (const size of [undefined, PHONE]) {
      const event = { id: 1, time: real.time, kind: "k", peer: "p", channel: "c", direction: "d", reason: "r", detail: "x".repeat(5000) };
      const events = (route) => route.fulfill({ json: { events: [hostile(event)] } });
      const own = await Window.open(browser, watched.metrics, { size, events, api: answering((answer) => hostile(answer)) });
      await drawn(own);
      await own.page.locator("button.more").first().click();
      await until("its event is there", async () => (await own.look()).events.length === 1);
      assert.equal(await own.page.locator("img, main script").count(), 0);
      assert.doesNotMatch(await own.page.title(), /^owned$/);
      assert.match((await own.look()).name, /<img src=x/);
      await own.fits();
      await own.close();
    }
  });

  await check("names without end stay in bounds", async () => {
    const own = await Window.open(browser, watched.metrics, { size: PHONE, api: answering((answer) => {
      for (const peer of [answer, ...answer.peers]) peer.name = "n".repeat(2000) + peer.name;
      for (const peer of answer.peers) peer.last_error = { time: answer.time, error: "e".repeat(4000) };
    }) });
    await drawn(own);
    await own.fits();
    assert.ok((await own.page.locator("#peers tr.peer").first().boundingBox()).height < 700);
    await own.close();
  });

  await check("who watches from outside has neither raft nor streams nor a ledger, and no columns for them", async () => {
    const own = await Window.open(browser, watched.metrics, { api: answering((answer) => {
      Object.assign(answer, { local: "0", name: "", cluster: null, raft: null, checks: [] });
      answer.peers = answer.peers.map(({ id, name, urls, reachable, round_trip_seconds, last_probe }) => ({ id, name, urls, reachable, round_trip_seconds, last_probe, streams: [], outgoing: null, view: null }));
    }) });
    await drawn(own);
    const look = await own.look();
    assert.equal(look.name, "rafthttp");
    assert.deepEqual([look.role, look.matrix], [null, null]);
    const [peer] = Object.values(look.peers);
    assert.match(peer.Link, /^reachable/);
    assert.deepEqual(Object.entries(peer).filter(([, words]) => words !== null).map(([label]) => label), ["Link", "Round trip", "Clock", "Last error"]);
    await own.page.locator("button.more").first().click();
    assert.doesNotMatch(await own.page.locator("tr.more").first().innerText(), /NaN|undefined|null/);
    await own.close();
  });

  await check("an answer with nothing in it is drawn as nothing known", async () => {
    const own = await Window.open(browser, watched.metrics, { api: async (route) => route.fulfill({ json: { local: "1", time: new Date().toISOString(), peers: [{ id: "2" }] } }) });
    await drawn(own);
    const { peers } = await own.look();
    assert.match(peers["2"].Link, /^unknown/);
    assert.doesNotMatch(await own.page.locator("body").innerText(), /NaN|undefined|null/);
    await own.close();
  });

  await check("a thousand targets are usable: the worst first, found by a filter, and no matrix of a million", async () => {
    const [model] = real.peers;
    const history = Array.from({ length: 180 }, (_, place) => (10 + (place % 7)) / 1e5);
    const peers = Array.from({ length: 1000 }, (_, place) => ({ ...model, id: (0xabc0000 + place).toString(16), name: `target-${place}`, reachable: place !== 777,
      last_probe: "NOW", view: null, round_trip_history_seconds: history }));
    // Written once: what is looked at is the page, not how fast a test makes megabytes.
    const body = JSON.stringify({ ...real, time: "NOW", peers });
    const api = (route) => route.fulfill({ contentType: "application/json", body: body.replaceAll("NOW", new Date().toISOString()) });
    const own = await Window.open(browser, watched.metrics, { api });
    await drawn(own);
    let look = await own.look();
    assert.match(look.sum, /999 of 1,000 peers reachable, 1 unreachable/);
    assert.equal(look.order[0], "target-777");
    assert.equal(look.order.length, 100);
    assert.match(look.note, /^The 100 worst of 1,000 peers/);
    assert.equal(look.matrix.length, 25);
    assert.ok(look.matrix.some(({ name }) => name === "target-777"));
    await own.page.getByLabel("Filter").fill("target-42");
    await until("those that match are there", async () => {
      look = await own.look();
      return look.order.length === 11 && look.order.every((name) => name.startsWith("target-42"));
    });
    await own.page.getByLabel("Filter").fill("");
    await own.page.getByRole("button", { name: "Show 100 more" }).click();
    await until("more are there", async () => (await own.look()).order.length === 200);
    await own.fits();
    await own.close();
  });

  await check("while nobody looks, nobody asks", async () => {
    const own = await Window.open(browser, watched.metrics);
    await drawn(own);
    const hide = (hidden) => own.page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    await own.page.waitForTimeout(500);
    const asked = own.requests.length;
    await own.page.waitForTimeout(3000);
    assert.equal(own.requests.length, asked);
    await hide(false);
    await until("it asks again", () => own.requests.length > asked);
    await own.close();
  });

  await check("a member without room for the question is asked less often, and in the end again each second", async () => {
    let full = 0;
    const own = await Window.open(browser, watched.metrics, { api: async (route) => (full++ < 2 ? route.fulfill({ status: 503, body: "too many requests are in progress\n" }) : route.continue()) });
    await until("it says so", async () => /it answered 503. Nothing is known yet/.test((await own.look()).banner ?? ""));
    await until("it answers", async () => (await own.look()).state === "live", 30);
    await until("no banner", async () => (await own.look()).banner === null);
    const asked = full;
    await until("it is asked each second", () => full >= asked + 3, 20);
    await own.close({ unreachable: true });
  });

  await check("everything about a peer opens by the keyboard, and stays open", async () => {
    const button = window.page.getByRole("button", { name: `All about ${other.name}` });
    await button.focus();
    await window.page.keyboard.press("Enter");
    assert.equal(await button.getAttribute("aria-expanded"), "true");
    await window.page.waitForTimeout(1500);
    const words = await window.page.locator("tr.more:not([hidden])").innerText();
    for (const word of ["offered = sent + dropped + queued", "received = processed + rejected + waiting", other.peers]) assert.ok(words.includes(word), words);
    assert.equal(await window.page.evaluate(() => document.activeElement.className), "more", "the focus stays");
  });

  await check("a member of a demo is shown too", async () => {
    const demo = await says(["demo"], /^open (http:\S+)/m);
    const own = await Window.open(browser, demo.url);
    await until("it sees the others", async () => (await own.look()).sum === "2 of 2 peers reachable, ledger balanced", 60);
    await until("it sends", async () => Object.values((await own.look()).peers).some(({ Sent }) => parseFloat(Sent) > 0));
    assert.equal((await own.look()).name, "demo-1");
    await own.close();
    await demo.stop();
  });
}
