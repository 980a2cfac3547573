// The README's pictures of the page.

import { join } from "node:path";

import { until } from "./checks.mjs";
import { Cluster } from "./members.mjs";
import { open, PHONE, Window } from "./window.mjs";

// How long the line of round trips is, and how long its end is the frozen member's.
const HEALTHY = 70_000;
const FROZEN = 12_000;

const [, , directory] = process.argv;
const browser = await open();
const cluster = await Cluster.start(["n1", "n2", "n3"]);
const leader = await until("there is a leader", async () => {
  const { raft, local } = await cluster.members[0].api();
  if (!raft.leader) return null;
  if (raft.leader === local) return cluster.members[0];
  const ids = await Promise.all(cluster.members.map(async (member) => [(await member.api()).local, member]));
  return new Map(ids).get(raft.leader);
});
const frozen = cluster.members.findLast((member) => member !== leader);
const quiet = cluster.load(leader);

// The leader's page: what it cannot deliver is there to see.
const desktop = await Window.open(browser, leader.metrics, { size: { width: 1280, height: 720 } });
const phone = await Window.open(browser, leader.metrics, { size: PHONE, scheme: "dark", scale: 1.5 });
await new Promise((resolve) => setTimeout(resolve, HEALTHY));
await frozen.frozen(async () => {
  await new Promise((resolve) => setTimeout(resolve, FROZEN));
  for (const [window, name] of [[desktop, "page.png"], [phone, "page-phone.png"]]) {
    await until("it is live", async () => (await window.look()).state === "live");
    await window.page.screenshot({ path: join(directory, name), fullPage: window === desktop });
  }
});
await quiet();
await desktop.close();
await phone.close();
await cluster.stop();
await browser.close();
