// The round trips of the last minutes as one line. A probe that failed is a mark at the foot, not a gap to read over.

import { span } from "./format.js";
import { attribute, svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;
const FOOT = 3;
const PROBES = 180;

export class Spark {
  constructor() {
    this.line = svg("path", { class: "line" });
    this.failed = svg("path", { class: "failed" });
    this.element = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", preserveAspectRatio: "none" }, this.failed, this.line);
  }

  set(history) {
    const probes = (history ?? []).slice(-PROBES);
    const times = probes.filter((time) => time !== null);
    const failed = probes.length - times.length;
    const top = Math.max(...times);
    attribute(this.element, "hidden", probes.length > 1 ? null : "");
    attribute(this.line, "d", line(probes, top));
    attribute(this.failed, "d", marks(probes));
    const range = times.length ? `from ${span(Math.min(...times))} to ${span(top)}` : "none succeeded";
    attribute(this.element, "aria-label", `round trips of the last ${probes.length} probes, ${range}, ${failed} failed`);
  }
}

const x = (place, probes) => (WIDTH - 1 - (probes.length - 1 - place) * ((WIDTH - 2) / (PROBES - 1))).toFixed(1);

// From 0 at the foot to the slowest at the top.
function line(probes, top) {
  let path = "";
  let down = false;
  probes.forEach((time, place) => {
    if (time !== null) {
      const y = HEIGHT - FOOT - 1 - (top > 0 ? time / top : 0) * (HEIGHT - FOOT - 3);
      path += `${down ? "L" : "M"}${x(place, probes)} ${y.toFixed(1)}`;
      // A success between two failures is a line without length: its round ends show.
      if (!down && (place + 1 === probes.length || probes[place + 1] === null)) path += "h0";
    }
    down = time !== null;
  });
  return path;
}

function marks(probes) {
  return probes.map((time, place) => (time === null ? `M${x(place, probes)} ${HEIGHT}v-${FOOT + 1}` : "")).join("");
}
