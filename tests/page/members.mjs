// Members in processes of their own, and a load on them. All of it ends with this process.

import { spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "./checks.mjs";

const binary = process.env.RAFTHTTP_BIN ?? new URL("../../target/debug/rafthttp", import.meta.url).pathname;

const children = new Set();
const directories = new Set();

// Whatever happens here: nothing of it stays.
function end() {
  for (const child of children) child.kill("SIGKILL");
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
}
process.on("exit", end);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

export function directory() {
  const path = mkdtempSync(join(tmpdir(), "rafthttp-page-"));
  directories.add(path);
  return path;
}

// Below the range that source ports are taken from, so that nobody's connection sits on it before its owner binds it.
export async function port() {
  for (;;) {
    const number = 10_000 + Math.floor(Math.random() * 22_000);
    const server = createServer();
    const bound = await new Promise((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(number, "127.0.0.1", () => resolve(true));
    });
    if (bound) {
      await new Promise((resolve) => server.close(resolve));
      return number;
    }
  }
}

// A process whose standard error goes to a file.
function start(flags, log, temporary = tmpdir()) {
  const env = { ...process.env, TMPDIR: temporary };
  const child = spawn(binary, flags, { env, stdio: ["ignore", "pipe", openSync(log, "a")] });
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

const ended = (child) => child.exitCode !== null || child.signalCode !== null;

async function stop(child, signal) {
  if (ended(child)) return;
  const over = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGCONT");
  child.kill(signal);
  await over;
}

export class Member {
  constructor(name, home, ports) {
    Object.assign(this, { name, home, ports });
    this.metrics = `http://127.0.0.1:${ports.metrics}/`;
    this.peers = `http://127.0.0.1:${ports.peers}`;
    this.clients = `http://127.0.0.1:${ports.clients}`;
    this.log = join(home, `${ports.peers}.log`);
  }

  start(cluster) {
    const everyone = cluster.map(({ name, peers }) => `${name}=${peers}`).join(",");
    this.process = start(["node", "--name", this.name, "--data-dir", join(this.home, `${this.ports.peers}.data`),
      "--initial-cluster", everyone, "--listen-peer-urls", this.peers, "--initial-advertise-peer-urls", this.peers,
      "--listen-client-urls", this.clients, "--advertise-client-urls", this.clients,
      "--listen-metrics-urls", new URL(this.metrics).origin], this.log);
  }

  freeze() {
    this.process.kill("SIGSTOP");
  }

  thaw() {
    this.process.kill("SIGCONT");
  }

  // Frozen for as long as `body` takes, and no longer.
  async frozen(body) {
    this.freeze();
    try {
      return await body();
    } finally {
      this.thaw();
    }
  }

  kill() {
    return stop(this.process, "SIGKILL");
  }

  fetch(path) {
    if (ended(this.process)) throw new Error(`it ended: ${readFileSync(this.log, "utf8").trim().split("\n").slice(-3).join(" | ")}`);
    return fetch(this.metrics + path, { signal: AbortSignal.timeout(5000) });
  }

  async api() {
    return (await this.fetch("api/peers")).json();
  }
}

export class Cluster {
  static async start(names) {
    const cluster = new Cluster();
    cluster.home = directory();
    cluster.members = [];
    for (const name of names) {
      cluster.members.push(new Member(name, cluster.home, { peers: await port(), clients: await port(), metrics: await port() }));
    }
    for (const member of cluster.members) member.start(cluster.members);
    for (const member of cluster.members) {
      await until(`${member.name} is ready`, async () => (await member.fetch("readyz")).ok, 60);
    }
    return cluster;
  }

  // Writes through a member, some twenty times a second, until it is told to stop.
  load(member) {
    let on = true;
    let number = 0;
    const writing = (async () => {
      while (on) {
        const body = `value ${number}`;
        await fetch(`${member.clients}/kv/key${number++ % 10}`, { method: "PUT", body, signal: AbortSignal.timeout(5000) }).catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    return async () => {
      on = false;
      await writing;
    };
  }

  restart(member) {
    member.start(this.members);
  }

  async stop() {
    await Promise.all(this.members.map((member) => member.kill()));
    rmSync(this.home, { recursive: true, force: true });
    directories.delete(this.home);
  }
}

// A process that says on its standard output where it is looked at: `demo`, `probe`.
export async function says(flags, pattern) {
  const home = directory();
  const child = start(flags, join(home, "log"), home);
  let output = "";
  child.stdout.on("data", (data) => (output += data));
  const found = await until(`${flags[0]} says where it listens`, () => {
    if (ended(child)) throw new Error(`it ended: ${readFileSync(join(home, "log"), "utf8").slice(-500)}`);
    return output.match(pattern)?.[1];
  }, 60);
  return { url: found, stop: () => stop(child, "SIGKILL") };
}
