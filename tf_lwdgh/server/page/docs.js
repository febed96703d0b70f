// The API's description, written out of /openapi.json.
"use strict";

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function operation(path, method, told) {
  const section = element("section");
  const line = element("div", "", "operation");
  line.append(element("span", method.toUpperCase(), "method"), element("code", path), element("span", told.summary));
  section.append(line);
  for (const [kind, body] of Object.entries(told.requestBody?.content ?? {})) {
    section.append(element("pre", `${kind}\n${JSON.stringify(body.schema, null, 2)}`));
  }
  return section;
}

async function show() {
  const main = document.getElementById("operations");
  const response = await fetch("/openapi.json");
  const api = await response.json();
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      const tag = told.tags?.[0] ?? "Other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(path, method, told));
    }
  }
  for (const [tag, sections] of groups) main.append(element("h2", tag), ...sections);
}

show().catch((error) => {
  document.getElementById("operations").textContent = `The description could not be read: ${error.message}`;
});
