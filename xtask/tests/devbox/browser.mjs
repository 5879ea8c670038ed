// Works with the web interface in a browser that listens for the DevTools protocol on port 9222: opens the folder's page,
// types a prompt, and waits for the answer. Any error on the console fails it, and any request that the server leaves without an
// answer or refuses. Arguments: address, password, folder, answer.
const [address, password, folder, answer] = process.argv.slice(2);
const LIMIT_SECONDS = 120;

async function until(what, ask) {
  const end = Date.now() + LIMIT_SECONDS * 1000;
  for (;;) {
    const found = await ask().catch(() => undefined);
    if (found) return found;
    if (Date.now() > end) throw new Error(`no ${what} within ${LIMIT_SECONDS} seconds`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

// A page of its own: the console of an older one may have errors of its past.
const page = await until("browser", async () => (await fetch("http://127.0.0.1:9222/json/new?about:blank", { method: "PUT" })).json());
const socket = new WebSocket(page.webSocketDebuggerUrl);
await new Promise((done) => (socket.onopen = done));
const waiting = new Map();
const problems = [];
// Method, address and status of each request. DevTools calls the one that hands over a prompt aborted, although it is answered with
// 204: the page throws the empty body away. So the status decides, and not how the loading ended.
const requests = new Map();
socket.onmessage = ({ data }) => {
  const { id, method, params, result, error } = JSON.parse(data);
  if (id) waiting.get(id)(result ?? error);
  if (method === "Runtime.consoleAPICalled" && params.type === "error")
    problems.push(params.args.map((it) => it.value ?? it.description).join(" "));
  if (method === "Runtime.exceptionThrown") problems.push(params.exceptionDetails.exception?.description ?? "an exception");
  if (method === "Network.requestWillBeSent") requests.set(params.requestId, params.request);
  if (method === "Network.responseReceived") requests.get(params.requestId).status = params.response.status;
  if (method === "Log.entryAdded" && params.entry.level === "error") problems.push(`${params.entry.text} ${params.entry.url}`);
};
function call(method, params = {}) {
  const id = waiting.size + 1;
  return new Promise((done) => {
    waiting.set(id, done);
    socket.send(JSON.stringify({ id, method, params }));
  });
}
const evaluate = async (expression) => (await call("Runtime.evaluate", { expression, returnByValue: true })).result.value;
async function enter() {
  const key = { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13 };
  await call("Input.dispatchKeyEvent", { type: "keyDown", text: "\r", ...key });
  await call("Input.dispatchKeyEvent", { type: "keyUp", ...key });
}
const body = () => evaluate("location.href + ' ' + document.body.innerText");

for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
// eslint
const authorization = `Basic ${btoa(`opencode:${password}`)}`;
await call("Network.setExtraHTTPHeaders", { headers: { Authorization: authorization } });
await call("Page.navigate", { url: address });
try {
  await until("choice of a project", () => evaluate(`document.querySelector('[data-action="prompt-project"]').click() ?? true`));
  await until("input for a folder", () => evaluate(`document.querySelector('[role="dialog"] input').focus() ?? true`));
  await call("Input.insertText", { text: folder });
  // A row of the list has each part of the path in an element of its own.
  await until("folder", () => evaluate(`document.querySelector('[role="dialog"]').innerText.replace(/\\s/g, "").includes(${JSON.stringify(folder + "/")})`));
  await enter();
  await until("end of the choice", () => evaluate(`!document.querySelector('[role="dialog"]')`));
  await until("input for a prompt", () => evaluate(`document.querySelector('[data-component="prompt-input"]')?.focus() ?? null, document.activeElement.dataset.component === "prompt-input"`));
  await call("Input.insertText", { text: "make the file" });
  await until("button to send", () => evaluate(`!document.querySelector('[data-action="prompt-submit"]').disabled`));
  await enter();
  await until("session", () => evaluate(`location.pathname.includes("/session/ses_")`));
  await until(`answer ${answer}`, () => evaluate(`document.body.innerText.includes(${JSON.stringify(answer)})`));
  console.log(`the page shows the answer at ${await evaluate("location.pathname.replace(/ses_.*/, 'ses_')")}`);
} catch (error) {
  problems.push(`${error.message}; the page: ${await body()}`);
}
socket.close();
for (const { method, url, status } of requests.values()) {
  // The answer to a worker's own script may be told to that worker only, whose page is another one for DevTools.
  const ask = () => fetch(url, { headers: { Authorization: authorization }, signal: AbortSignal.timeout(20000) });
  const found = status ?? (method === "GET" && (await ask().catch(() => undefined))?.status);
  if (!found || found >= 400) problems.push(`${found || "no answer"}: ${method} ${url}`);
}
console.log(problems.length ? problems.join("\n") : "no error on the console, and every request answered");
process.exitCode = problems.length ? 1 : 0;
