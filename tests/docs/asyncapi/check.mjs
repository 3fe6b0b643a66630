// node check.mjs FILE: what the parser finds in the document, as one line of JSON.
import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";

const { document, diagnostics } = await new parser.Parser().parse(readFileSync(process.argv[2], "utf8"));
const operations = document?.operations().all() ?? [];
console.log(JSON.stringify({
  version: document?.version() ?? null,
  operations: Object.fromEntries(operations.map((each) => [each.id(), {
    action: each.action(),
    messages: each.messages().all().map((message) => message.id()),
    reply: each.reply()?.messages().all().map((message) => message.id()) ?? [],
  }])),
  diagnostics: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join(".") })),
}));
