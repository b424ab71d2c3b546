"use strict";
const { models, max_upload: maxUpload } = JSON.parse(document.getElementById("facts").textContent);
const form = document.getElementById("form");
const [drop, input, preview, text] = ["drop", "file", "preview", "text"].map((id) => document.getElementById(id));
const cards = [...document.querySelectorAll(".answers .card")];
let image = null;
let running = null;

// what models write is only ever shown as text
function make(tag, words = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = words;
  made.className = className;
  return made;
}

function choose(file) {
  if (!file) return;
  image = file;
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  run();
}

function fieldsOf(model) {
  const fields = new FormData();
  fields.set("model", model.name);
  if (model.reads_images) fields.set("image", image);
  if (model.reads_text) fields.set("text", text.value);
  if (model.task === "caption") {
    for (const control of form.querySelectorAll("fieldset input")) {
      if (control.disabled || control.type === "checkbox" || control.value === "") continue;
      fields.set(control.name, control.value);
    }
    const emotion = form.elements.emotion?.value;
    if (emotion && model.emotions.includes(emotion)) fields.set("emotion", emotion);
    fields.set("sample", form.elements.sample.checked);
    fields.set("attention", model.attends);
  }
  return fields;
}

async function ask(model, signal) {
  if (model.reads_images && !image) throw new Error("choose an image");
  if (model.reads_text && !text.value.trim()) throw new Error("write a caption");
  if (model.reads_images && image.size > maxUpload) {
    throw new Error(`the image is larger than ${(maxUpload / 2 ** 20).toFixed(0)} MB`);
  }
  const answer = await fetch(`v1/${model.task}`, { method: "POST", body: fieldsOf(model), signal });
  const content = await answer.json().catch(() => ({ detail: answer.statusText }));
  if (answer.ok) return content;
  const detail = Array.isArray(content.detail) ? content.detail.map((one) => one.msg).join("; ") : content.detail;
  throw new Error(detail || `status ${answer.status}`);
}

async function run() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  await Promise.all(models.map(async (model, place) => {
    const [box, time] = [".answer", ".score"].map((name) => cards[place].querySelector(name));
    const begun = performance.now();
    cards[place].setAttribute("aria-busy", "true");
    try {
      const content = await ask(model, signal);
      box.replaceChildren(...(model.task === "caption" ? captionParts(content) : labelParts(content)));
      time.textContent = `${Math.round(performance.now() - begun)} ms`;
    } catch (error) {
      if (error.name === "AbortError") return;
      box.replaceChildren(make("p", error.message, "warning"));
      time.textContent = "";
    }
    cards[place].removeAttribute("aria-busy");
  }));
}

function captionParts({ captions, attention, seen }) {
  const list = make("ol", "", "captions");
  for (const { text: words, log_prob: score } of captions) {
    const row = make("li", words || "(empty)");
    row.append(make("span", score.toFixed(2), "score"));
    row.lastChild.title = "log-probability";
    list.append(row);
  }
  return attention?.length ? [list, attentionPart(attention, seen)] : [list];
}

function attentionPart(attention, seen) {
  const part = make("div", "", "attention");
  const large = document.createElement("canvas");
  const words = make("div", "", "words");
  const picture = new Image();
  const buttons = attention.map(({ word, map }) => {
    const button = make("button", word);
    button.type = "button";
    const show = () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      overlay(large, picture, map);
    };
    for (const name of ["click", "focus", "pointerenter"]) button.addEventListener(name, show);
    return button;
  });
  words.append(...buttons);
  part.append(make("div", "Attention at each word", "references"), words, large);
  picture.addEventListener("load", () => buttons[0].click());
  picture.src = seen;
  return part;
}

// the brightest cell of a map is drawn strongest, whatever its weight
function overlay(canvas, picture, map) {
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const [rows, columns] = [map.length, map[0].length];
  const heat = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  const most = Math.max(...map.flat(), 1e-12);
  map.flat().forEach((value, cell) => pixels.data.set([255, 60, 0, Math.round(200 * value / most)], 4 * cell));
  heat.getContext("2d").putImageData(pixels, 0, 0);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  pen.drawImage(heat, 0, 0, canvas.width, canvas.height);
}

function labelParts({ labels, threshold }) {
  const table = make("div", "", "bars");
  for (const { name, probability, predicted } of labels.slice(0, 30)) {
    const bar = make("span", "", "bar");
    bar.append(make("span"));
    bar.firstChild.style.width = `${100 * probability}%`;
    table.append(make("span", name, predicted ? "label true" : "label"), bar, make("span", probability.toFixed(2)));
  }
  const rule = threshold === null ? "the most probable is predicted" : `predicted from ${threshold.toFixed(2)} on`;
  return [make("div", rule, "references"), table];
}

input.addEventListener("change", () => choose(input.files[0]));
form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
form.elements.sample?.addEventListener("change", ({ target }) => {
  for (const name of ["temperature", "top_p", "seed"]) form.elements[name].disabled = !target.checked;
  form.elements.beams.disabled = target.checked;
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
