// The page's script with as much of a browser as it asks for: node page.mjs PAGE SERVER, steps as JSON on standard input.
// Prints for each step what was sent and what is seen then.
import { readFileSync } from "node:fs";

const [page, server] = process.argv.slice(2);
const html = readFileSync(page, "utf8");

class Element {
  children = []; attributes = {}; style = {}; value = ""; hidden = false; disabled = false;
  constructor(text) { if (text !== undefined) this.children = [text]; }
  get textContent() { return this.children.map((one) => one.textContent ?? one).join(""); }
  set textContent(text) { this.children = [text]; }
  append(...more) { more.forEach((one) => { if (one instanceof Element) one.parent = this; }); this.children.push(...more); }
  replaceChildren(...others) { this.children = []; this.append(...others); }
  remove() { this.parent.children = this.parent.children.filter((one) => one !== this); }
  setAttribute(name, value) { this.attributes[name] = value; }
  scrollIntoView() {}
}

const elements = {};
globalThis.document = {
  getElementById: (id) => (elements[id] ??= new Element()),
  createElement: () => new Element(),
  body: { scrollHeight: 0 },
};
globalThis.window = { innerHeight: 0, scrollY: 0, scrollTo() {} };
const sent = [];
const http = globalThis.fetch;
globalThis.fetch = (path, options) => {
  if (options?.body) sent.push(JSON.parse(options.body));
  return http(server + path, options);
};
const tokens = document.getElementById("tokens");
tokens.defaultValue = tokens.value = html.match(/id="tokens"[^>]* value="(\d+)"/)[1];
document.getElementById("temperature").value = "0";

const script = html.match(/<script>([^]*)<\/script>/)[1];
const { state, busyNow } = new Function(`${script}; return { state, busyNow: () => state.abort };`)();
const settle = async () => {
  do await new Promise((done) => setTimeout(done, 20)); while (busyNow() || elements.label?.disabled || !state.model);
};

await settle();
for (const step of JSON.parse(readFileSync(0, "utf8"))) {
  sent.length = 0;
  for (const [id, value] of Object.entries(step.fill ?? {})) document.getElementById(id).value = value;
  if (step.click) document.getElementById(step.click).onclick();
  if (step.submit) document.getElementById(step.submit).onsubmit({ preventDefault() {} });
  await settle();
  const trouble = elements.trouble.hidden ? "" : elements.trouble.textContent;
  const shown = { log: document.getElementById("log").textContent, labels: document.getElementById("labels").textContent };
  console.log(JSON.stringify({ sent, trouble, tokens: tokens.value, ...shown }));
}
