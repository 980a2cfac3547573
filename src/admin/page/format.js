// Numbers, times and words, as people read them. Nothing here knows the page.

export const NONE = "–";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

// 1,234; from a million on 1.23 M.
export function count(number) {
  if (!Number.isFinite(number)) return NONE;
  if (number < 1e6) return whole.format(number);
  return number < 1e9 ? `${digits(number / 1e6)} M` : `${digits(number / 1e9)} G`;
}

export function bytes(number) {
  if (!Number.isFinite(number)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; number >= 1024 && unit < units.length - 1; unit++) number /= 1024;
  return `${unit ? digits(number) : whole.format(number)} ${units[unit]}`;
}

// A second: 0, 0.4, 12, 1,234.
export function rate(number) {
  if (!Number.isFinite(number)) return NONE;
  if (number === 0) return "0";
  return number < 10 ? number.toFixed(1) : count(Math.round(number));
}

// How long something took: 0.21 ms, 12.3 ms, 1.20 s.
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const size = Math.abs(seconds);
  return size < 1 ? `${digits(size * 1e3)} ms` : `${digits(size)} s`;
}

export function signed(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  return `${seconds < 0 ? "−" : "+"}${span(seconds)}`;
}

// How long ago, or for how long: 0.4 s, 12 s, 3 min, 2 h, 5 d.
export function age(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  seconds = Math.max(0, seconds);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.floor(seconds)} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

export const ago = (seconds) => (Number.isFinite(seconds) ? `${age(seconds)} ago` : NONE);

// A server's time, in seconds; NaN when there is none.
export const seconds = (time) => (time ? Date.parse(time) / 1e3 : NaN);

// A server's time as the clock on the wall shows it.
export function clock(at) {
  if (!Number.isFinite(at)) return NONE;
  const time = new Date(at * 1e3);
  const two = (number) => String(number).padStart(2, "0");
  const tenth = Math.floor(time.getMilliseconds() / 100);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${tenth}`;
}

// stream_lost: stream lost.
export const words = (label) => String(label).replaceAll("_", " ");

// A name in a sentence. Members name themselves: what would turn the direction of the text is left out, and who is long
// is cut.
export function short(name, most = 40) {
  const plain = String(name).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "");
  const letters = [...plain];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : plain;
}

// One peer, 2 peers.
export const several = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

function digits(number) {
  if (number === 0) return "0";
  return number < 10 ? number.toFixed(2) : number < 100 ? number.toFixed(1) : whole.format(number);
}
