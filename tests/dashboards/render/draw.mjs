// draw.mjs PAGE REQUEST: serves the built page, opens it in Chromium, and writes pictures. REQUEST is a JSON file:
// {"playwright": …, "chromium": …, "render": what main.jsx reads, "pictures": [{"file": …, "height": pixels from the top}]}
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

const [, , page, request] = process.argv;
const { playwright, chromium: executablePath, render, pictures } = JSON.parse(await readFile(request, 'utf8'));
const { chromium } = createRequire(import.meta.url)(playwright);
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };

const server = createServer(async ({ url }, answer) => {
  const name = url === '/' ? 'index.html' : url.slice(1);
  try {
    const body = await readFile(path.join(page, path.normalize(name)));
    answer.writeHead(200, { 'content-type': types[path.extname(name)] ?? 'application/octet-stream' }).end(body);
  } catch {
    answer.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] });
const errors = [];
try {
  const tab = await browser.newPage({ viewport: { width: render.width, height: 1000 } });
  tab.on('console', (line) => line.type() === 'error' && console.error(line.text().slice(0, 1000)));
  tab.on('pageerror', (error) => errors.push(String(error.stack ?? error).slice(0, 1000)));
  await tab.addInitScript((given) => { window.RENDER = given; }, render);
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  const patience = Date.now() + 120_000;
  while (!errors.length && !(await tab.evaluate(() => window.DRAWN))) {
    if (Date.now() > patience) {
      errors.push('not drawn within two minutes');
    }
    await new Promise((soon) => setTimeout(soon, 100));
  }
  const whole = (await tab.evaluate(() => document.body.scrollHeight)) || 100;
  for (const { file, height } of pictures) {
    await tab.screenshot({ path: file, fullPage: true, clip: { x: 0, y: 0, width: render.width, height: Math.min(height ?? whole, whole) } });
  }
  console.log(JSON.stringify({ drawn: (await tab.evaluate(() => window.DRAWN)) ?? [], errors, text: await tab.evaluate(() => document.body.innerText) }));
} finally {
  await browser.close();
  server.close();
}
