// Looks at a report in a browser that listens for the DevTools protocol on port 9222: in both colour schemes, on a narrow and on
// a wide page. Any request, any line on the console, a page that is wider than the window and text that is hard to read
// fail it. Argument: address.
const [address] = process.argv.slice(2);
const end = Date.now() + 60000;
async function browser() {
  for (;;) {
    try {
      return await (await fetch("http://127.0.0.1:9222/json/new?about:blank", { method: "PUT" })).json();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((done) => setTimeout(done, 200));
    }
  }
}
const socket = new WebSocket((await browser()).webSocketDebuggerUrl);
await new Promise((done) => (socket.onopen = done));
const waiting = new Map();
const problems = [];
let loaded;
socket.onmessage = ({ data }) => {
  const { id, method, params, result, error } = JSON.parse(data);
  if (id) waiting.get(id)(result ?? error);
  if (method === "Page.loadEventFired") loaded();
  if (method === "Runtime.consoleAPICalled") problems.push(`console: ${params.args.map((it) => it.value).join(" ")}`);
  if (method === "Runtime.exceptionThrown") problems.push(`exception: ${params.exceptionDetails.text}`);
  if (method === "Log.entryAdded") problems.push(`log: ${params.entry.text} ${params.entry.url}`);
  if (method === "Network.requestWillBeSent" && params.request.url !== address) problems.push(`request: ${params.request.url}`);
};
function call(method, params = {}) {
  const id = waiting.size + 1;
  return new Promise((done) => {
    waiting.set(id, done);
    socket.send(JSON.stringify({ id, method, params }));
  });
}
// What is wrong with the page as it is shown. Contrast is that of WCAG 2.
const LOOK = `(() => {
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window: " + document.documentElement.scrollWidth);
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (value) => ((value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    if (element.tagName === "text") return rgb(getComputedStyle(element.parentElement.querySelector("rect")).fill);
    for (let it = element; it; it = it.parentElement) {
      const color = rgb(getComputedStyle(it).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let looked = 0;
  for (const element of document.querySelectorAll("h1, h2, h3, p, th, td, caption, figcaption, a, dt, dd, .from, .failed, text")) {
    const style = getComputedStyle(element);
    const [a, b] = [light(rgb(element.tagName === "text" ? style.fill : style.color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong.push("contrast " + contrast.toFixed(1) + ": " + element.outerHTML.slice(0, 80));
    looked += 1;
  }
  const pictures = [...document.querySelectorAll("svg")].filter((it) => it.getBoundingClientRect().width > 0);
  if (pictures.length !== 1) wrong.push(pictures.length + " pictures are shown");
  for (const text of document.querySelectorAll("svg text")) {
    const [inside, around] = [text.getBoundingClientRect(), text.parentElement.querySelector("rect").getBoundingClientRect()];
    if (inside.width > 0 && inside.right > around.right + 2) wrong.push("outside of its tile: " + text.textContent);
  }
  return { wrong: wrong.slice(0, 10), looked };
})()`;
for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
for (const scheme of ["light", "dark"]) {
  for (const width of [400, 1600]) {
    await call("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
    await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const done = new Promise((resolve) => (loaded = resolve));
    await call("Page.navigate", { url: address });
    await done;
    const { result } = await call("Runtime.evaluate", { expression: LOOK, returnByValue: true });
    if (!result.value) problems.push(`${scheme} ${width}: ${JSON.stringify(result)}`);
    else if (result.value.looked < 50) problems.push(`${scheme} ${width}: only ${result.value.looked} elements`);
    problems.push(...(result.value?.wrong ?? []).map((it) => `${scheme} ${width}: ${it}`));
    const { data } = await call("Page.captureScreenshot", { format: "png" });
    if (!data) problems.push(`${scheme} ${width}: no picture`);
  }
}
const { data } = await call("Page.printToPDF");
if (!data) problems.push("it cannot be printed");
socket.close();
console.log(problems.length ? problems.join("\n") : "nothing is wrong with the page");
process.exitCode = problems.length ? 1 : 0;
