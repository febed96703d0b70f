// The page: pictures in classes, pictures to tell apart, and the server's answers. No picture is changed.
"use strict";

const byId = (id) => document.getElementById(id);
const copy = (id) => byId(id).content.firstElementChild.cloneNode(true);
const classifier = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`; // of this visit alone
const classes = []; // {name, files, element}
const queries = []; // {file, element}
let learned = false; // whether the server has learned the classes as they are shown
let letter = 0;

function say(text) {
  byId("status").textContent = text;
}

function fail(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

function changed() {
  learned = false;
  for (const query of queries) showAnswer(query, null);
  say("");
  fail("");
}

function picture(element, file) {
  const image = element.querySelector("img");
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  element.querySelector("button").setAttribute("aria-label", `Remove ${file.name}`);
}

function forget(element) {
  URL.revokeObjectURL(element.querySelector("img").src);
  element.remove();
}

function addClass() {
  const entry = { files: [], element: copy("class-card") };
  entry.input = entry.element.querySelector("input[type=text]");
  entry.input.value = `class ${String.fromCharCode(65 + (letter++ % 26))}`;
  entry.input.addEventListener("input", changed);
  entry.add = (files) => {
    for (const file of files) {
      const item = copy("thumb");
      picture(item, file);
      item.querySelector("button").addEventListener("click", () => {
        entry.files.splice(entry.files.indexOf(file), 1);
        forget(item);
        changed();
      });
      entry.files.push(file);
      entry.element.querySelector(".thumbs").append(item);
    }
    changed();
  };
  const remove = entry.element.querySelector(".remove-class");
  remove.setAttribute("aria-label", "Remove this class");
  remove.addEventListener("click", () => {
    classes.splice(classes.indexOf(entry), 1);
    entry.element.querySelectorAll(".thumbs li").forEach(forget);
    entry.element.remove();
    changed();
  });
  takeFiles(entry.element, entry.add);
  classes.push(entry);
  byId("classes").append(entry.element);
  return entry;
}

function addQueries(files) {
  for (const file of files) {
    const entry = { file, element: copy("query") };
    picture(entry.element, file);
    entry.element.querySelector(".file").textContent = file.name;
    entry.element.querySelector("button").addEventListener("click", () => {
      queries.splice(queries.indexOf(entry), 1);
      forget(entry.element);
    });
    queries.push(entry);
    byId("queries").querySelector("ul").append(entry.element);
  }
  fail("");
}

function takeFiles(zone, add) {
  const input = zone.querySelector("input[type=file]");
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = ""; // the same file may be chosen again
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    add([...event.dataTransfer.files]);
  });
}

function showAnswer(query, answer) {
  const bars = query.element.querySelector(".bars");
  bars.replaceChildren();
  query.element.querySelector(".best").textContent = answer ? answer.class : "";
  if (!answer) return;
  const shares = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, share] of shares) {
    const [row, label, bar, percent] = ["li", "span", "meter", "span"].map((t) => document.createElement(t));
    label.textContent = label.title = name;
    bar.value = share;
    bar.setAttribute("aria-label", name);
    percent.textContent = `${(100 * share).toFixed(1)} %`;
    row.append(label, bar, percent);
    bars.append(row);
  }
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer, or has closed the connection.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(answer.error || `The server answered ${response.status}.`);
    error.status = response.status;
    throw error;
  }
  return answer;
}

function check() {
  const names = classes.map((entry) => entry.input.value.trim());
  if (names.some((name) => !name)) throw new Error("Every class needs a name.");
  if (new Set(names).size < names.length) throw new Error("Every class needs a name of its own.");
  const empty = names.filter((_, i) => !classes[i].files.length);
  if (empty.length) throw new Error(`A picture is missing for: ${empty.join(", ")}.`);
  if (!queries.length) throw new Error("There is no picture to tell apart yet.");
}

async function learn() {
  const form = new FormData();
  for (const entry of classes) {
    for (const file of entry.files) form.append(entry.input.value.trim(), file);
  }
  const start = performance.now();
  await ask(`/v1/classifiers/${classifier}`, { method: "PUT", body: form });
  learned = true;
  return `Learned in ${Math.round(performance.now() - start)} ms. `;
}

async function answer() {
  const asked = [...queries];
  const form = new FormData();
  for (const query of asked) form.append("query", query.file);
  const start = performance.now();
  const found = await ask(`/v1/classifiers/${classifier}:predict`, { method: "POST", body: form });
  found.predictions.forEach((prediction, i) => showAnswer(asked[i], prediction));
  return `Answered in ${Math.round(performance.now() - start)} ms.`;
}

async function learnAndAnswer() {
  fail("");
  byId("ask").disabled = true;
  try {
    check();
    say("Working …");
    let told = learned ? "" : await learn();
    try {
      told += await answer();
    } catch (error) {
      if (error.status !== 404) throw error;
      told = (await learn()) + (await answer()); // it was let go meanwhile
    }
    say(told);
  } catch (error) {
    say("");
    fail(error.message);
  }
  byId("ask").disabled = false;
}

function clear() {
  while (classes.length) classes[0].element.querySelector(".remove-class").click();
  while (queries.length) queries[0].element.querySelector("button").click();
  letter = 0;
  addClass();
  addClass();
  fetch(`/v1/classifiers/${classifier}`, { method: "DELETE" }).catch(() => {});
}

async function about() {
  const { model, limits } = await ask("/v1/about");
  const ways = model.largest_n_way ? `2 to ${model.largest_n_way} classes` : "two classes or more";
  const steps = model.inner_steps === null ? "" : `, ${model.inner_steps} inner steps`;
  byId("about").textContent = `${model.name}, version ${model.version}: ${model.learner} on ${model.backbone}${steps}. Takes ${ways}.`;
  const size = model.image.image_size;
  const colour = model.image.channels === 3 ? "in colour" : "in grey";
  let note = `JPEG, PNG, BMP or GIF of up to ${limits.max_pixels.toLocaleString("en")} pixels each. The model sees each picture at ${size} × ${size} ${colour}, as its pixels are stored: a camera's note that it is turned is not heeded, here neither.`;
  if (model.predictions_depend_on_the_other_queries) {
    note += " Each answer of this model depends on the other pictures that are asked with it.";
  }
  byId("note").textContent = note;
}

byId("queries").innerHTML = "";
byId("queries").append(document.createElement("ul"), ...[...copy("class-card").children].slice(2));
takeFiles(byId("queries"), addQueries);
for (const type of ["dragover", "drop"]) {
  window.addEventListener(type, (event) => event.preventDefault()); // a missed drop must not leave the page
}
byId("add-class").addEventListener("click", () => addClass().input.select());
byId("ask").addEventListener("click", learnAndAnswer);
byId("clear").addEventListener("click", clear);
addClass();
addClass();
about().catch((error) => fail(error.message));
