// The last transitions, newest first.

import { ago, clock, count, seconds, several, short, words } from "./format.js";
import { icon, Keyed, make, show, text } from "./dom.js";

const KEPT = 256;
const SHOWN = 12;

const BAD = new Set(["peer_unreachable", "peer_inactive", "stream_lost", "member_removed", "incarnation_refused", "member_refused", "snapshot_restarted", "snapshot_overtaken"]);
const GOOD = new Set(["peer_reachable", "peer_active", "stream_attached", "incarnation_heard", "snapshot_resumed"]);

export class Events {
  constructor(document) {
    this.at = (id) => document.getElementById(id);
    this.rows = new Keyed(this.at("events"), row);
    this.all = false;
    this.reset();
    this.at("events-all").addEventListener("click", () => {
      this.all = !this.all;
      if (this.last) this.draw(...this.last);
    });
  }

  // The member began anew, and so do its events.
  reset() {
    this.events = [];
    this.after = null;
    this.known = false;
  }

  // Takes an answer of /api/events.
  add({ events = [] }) {
    this.known = true;
    for (const event of events) {
      if (this.after !== null && event.id <= this.after) continue;
      this.events.push(event);
      this.after = event.id;
    }
    this.events = this.events.slice(-KEPT);
  }

  draw(names, now) {
    this.last = [names, now];
    const newest = this.events.slice(this.all ? 0 : -SHOWN).reverse();
    this.rows.update(newest, ({ id }) => id, (part, event) => {
      text(part.who, event.peer ? short(names.get(event.peer) || event.peer) : "");
      text(part.age, ago(now - seconds(event.time)));
    });
    const none = this.known ? "none yet" : "not known";
    text(this.at("events-sum"), this.events.length > 0 ? `the last ${count(this.events.length)}` : none);
    const button = this.at("events-all");
    show(button, this.events.length > SHOWN);
    text(button, this.all ? `Show the last ${SHOWN} only` : `Show ${several(this.events.length, "event")}`);
  }
}

function row(event) {
  const symbol = BAD.has(event.kind) ? "bad" : GOOD.has(event.kind) ? "ok" : "plain";
  const who = make("bdi", { class: "name" });
  const when = make("small");
  const way = [event.channel, event.direction].filter(Boolean).join(" ");
  const why = [event.reason ? words(event.reason) : "", event.detail ?? ""].filter(Boolean).join(": ");
  const line = make("li", { class: symbol },
    make("time", { datetime: event.time, title: event.time }, clock(seconds(event.time))),
    icon(symbol), make("span", { class: "what" }, make("b", {}, words(event.kind)), " ", who, way ? ` ${way}` : ""),
    make("span", { class: "why" }, why), when);
  return { nodes: [line], who, age: when };
}
