// A report's page with as much of a browser as it asks for: node report.mjs PAGE LANGUAGE. Prints the text of its body,
// before and after the button that changes the language.
import { readFileSync } from "node:fs";

const [page, language] = process.argv.slice(2);
const html = readFileSync(page, "utf8");
const [, data, script] = html.match(/<script id="data"[^>]*>(.*?)<\/script>\s*<script>(.*?)<\/script>/s);

class Element {
  children = []; style = {};
  constructor(tag) { this.tag = tag; }
  append(...more) { this.children.push(...more); }
  replaceChildren(...others) { this.children = others; }
  setAttribute() {}
  get lastChild() { return this.children.at(-1); }
  set textContent(text) { this.children = [String(text)]; }
  get textContent() { return this.children.map((one) => one.textContent ?? one).join(" "); }
}
const find = (element, tag) => element.tag === tag ? element : element.children?.map((one) => find(one, tag)).find(Boolean);

globalThis.document = {
  body: new Element("body"), documentElement: {}, getElementById: () => ({ textContent: data }),
  createElement: (tag) => new Element(tag), createElementNS: (_, tag) => new Element(tag),
};
globalThis.window = { innerWidth: 390 };
Object.defineProperty(globalThis, "navigator", { value: { language } });
(0, eval)(script);
const first = document.body.textContent;
find(document.body, "button").onclick();
console.log(JSON.stringify([first, document.body.textContent]));
