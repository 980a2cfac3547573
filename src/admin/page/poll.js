// Asks the member each second; less often when it does not answer or is slow, more often when something is in doubt,
// and not at all while nobody looks.

const EACH = 1000;
const DOUBT = 250;
const MOST = 10_000;
const PATIENCE = 10_000;
// Of the time, what asking may take, and how long a slow answer may make the pause: one of a thousand peers is megabytes.
const SHARE = 0.25;
const SLOWEST = 4000;

export class Poll {
  // `ask(signal)` resolves to whether something is in doubt. `failed(error)` is told of each failure.
  constructor(ask, failed) {
    this.ask = ask;
    this.failed = failed;
    this.failures = 0;
    this.timer = null;
    this.asking = false;
    // Seconds until it asks again.
    this.due = EACH / 1000;
    document.addEventListener("visibilitychange", () => this.now());
    addEventListener("pageshow", () => this.now());
    addEventListener("online", () => this.now());
  }

  now() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!document.hidden && !this.asking) this.turn();
  }

  async turn() {
    const abort = new AbortController();
    const late = setTimeout(() => abort.abort(new Error("no answer in time")), PATIENCE);
    const start = performance.now();
    let doubt = false;
    this.asking = true;
    try {
      doubt = await this.ask(abort.signal);
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      this.failed(error);
    } finally {
      clearTimeout(late);
      this.asking = false;
    }
    if (document.hidden) return;
    const took = performance.now() - start;
    const pause = Math.max(this.pause(doubt) - took, Math.min(took / SHARE - took, SLOWEST), 50);
    this.due = pause / 1000;
    this.timer = setTimeout(() => this.now(), pause);
  }

  pause(doubt) {
    if (this.failures > 0) return Math.min(EACH * 2 ** (this.failures - 1), MOST);
    return doubt ? DOUBT : EACH;
  }
}
