// A browser window on the page, and what a person sees in it.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT);

export const open = () => chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});

export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

// A window of its own on `url`. It notes what the console says, what breaks, and every request that goes elsewhere.
export class Window {
  static async open(browser, url, { size = DESKTOP, scheme = "light", scale = 1, api, events } = {}) {
    const window = new Window();
    window.context = await browser.newContext({ viewport: size, colorScheme: scheme, deviceScaleFactor: scale });
    window.page = await window.context.newPage();
    window.complaints = [];
    window.requests = [];
    const { origin } = new URL(url);
    window.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) window.complaints.push(message.text());
    });
    window.page.on("pageerror", (error) => window.complaints.push(String(error)));
    window.page.on("request", (request) => {
      window.requests.push(request.url());
      if (new URL(request.url()).origin !== origin) window.complaints.push(`a request to ${request.url()}`);
    });
    // What the member would answer, as a test wants it.
    if (api) await window.page.route("**/api/peers", (route) => api(route));
    if (events) await window.page.route("**/api/events*", (route) => events(route));
    await window.page.goto(url, { timeout: 60_000 });
    return window;
  }

  // What is there to read.
  look() {
    return this.page.evaluate(() => {
      const shown = (element) => Boolean(element) && element.checkVisibility();
      const words = (element) => (shown(element) ? element.innerText.trim() : null);
      const rows = [...document.querySelectorAll("#peers tr.peer")].map((row) => {
        const cells = [...row.querySelectorAll("td")].map((cell) => [cell.dataset.label, words(cell)]);
        return [words(row.querySelector(".name")), Object.fromEntries(cells)];
      });
      const matrix = [...document.querySelectorAll("#matrix tbody tr")].map((row) => ({
        name: words(row.querySelector(".name")),
        said: words(row.querySelector("small")),
        cells: [...row.querySelectorAll("td")].map((cell) => ({ kind: cell.className, text: cell.innerText.trim() })),
      }));
      return {
        title: document.title,
        state: document.body.dataset.state,
        banner: words(document.getElementById("banner")),
        name: words(document.getElementById("name")),
        role: words(document.getElementById("role")),
        ready: words(document.getElementById("ready")),
        facts: Object.fromEntries([...document.querySelectorAll("#facts > div")].map((fact) => [fact.children[0].innerText, fact.children[1].innerText])),
        sum: words(document.getElementById("peers-sum")),
        peers: Object.fromEntries(rows),
        order: rows.map(([name]) => name),
        note: words(document.getElementById("peers-note")),
        matrix: shown(document.getElementById("matrix")) ? matrix : null,
        links: words(document.getElementById("matrix-sum")),
        events: [...document.querySelectorAll("#events li")].map((event) => event.innerText.replaceAll(/\s+/g, " ")),
        spoken: document.getElementById("spoken").textContent,
      };
    });
  }

  // Nothing of a page may be reached by scrolling sideways only.
  async fits() {
    const { content, window } = await this.page.evaluate(() => ({ content: document.documentElement.scrollWidth, window: innerWidth }));
    assert.ok(content <= window, `${content} px wide in a window of ${window}`);
  }

  // Every text that is shown against what is behind it: WCAG AA asks for 4.5.
  async legible() {
    const poor = await this.page.evaluate(() => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].map((part, place) => (place < 3 ? part : part / 255));
      };
      const over = (top, ground) => top.slice(0, 3).map((part, place) => part * top[3] + ground[place] * (1 - top[3]));
      const luminance = (color) => {
        const [r, g, b] = color.map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (element) => {
        if (!element) return [255, 255, 255];
        const color = rgba(getComputedStyle(element).backgroundColor);
        return color[3] === 1 ? color.slice(0, 3) : over(color, ground(element.parentElement));
      };
      const poor = [];
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        if (!node.data.trim() || element.closest("noscript, .spoken, #peers thead") || !element.checkVisibility()) continue;
        const behind = ground(element);
        let opacity = 1;
        for (let above = element; above; above = above.parentElement) opacity *= Number(getComputedStyle(above).opacity);
        const color = rgba(getComputedStyle(element).color);
        const [light, dark] = [over([...color.slice(0, 3), color[3] * opacity], behind), behind].map(luminance).sort((one, other) => other - one);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < 4.5) poor.push(`${contrast.toFixed(2)} ${element.tagName}.${element.className}: ${node.data.trim().slice(0, 40)}`);
      }
      return poor;
    });
    assert.deepEqual(poor, []);
  }

  // Closes it, and says what it complained of.
  async close({ unreachable = false } = {}) {
    await this.context.close();
    // That a member does not answer is the browser's to say, and no fault of the page.
    const faults = this.complaints.filter((complaint) => !(unreachable && complaint.startsWith("Failed to load resource")));
    assert.deepEqual(faults, []);
  }
}
