// Runs checks one after the other and counts them.

import assert from "node:assert/strict";

export const all = process.env.RAFTHTTP_TEST_TIER === "all";

let passed = 0;
let failed = 0;

// One behaviour, named as a sentence.
export async function check(name, body) {
  const start = performance.now();
  try {
    const said = await body();
    passed += 1;
    console.log(`ok    ${name} (${((performance.now() - start) / 1e3).toFixed(1)} s)${said ? `: ${said}` : ""}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n${String(error.stack ?? error).replace(/^/gm, "      ")}`);
  }
}

export function close(part) {
  console.log(`${part}: ${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

// Asks until `holds` gives something true. What it throws counts as no.
export async function until(what, holds, seconds = 30) {
  const end = performance.now() + seconds * 1e3;
  let last;
  for (;;) {
    try {
      last = await holds();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) assert.fail(`not within ${seconds} s: ${what} (last: ${last?.message ?? JSON.stringify(last)})`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
