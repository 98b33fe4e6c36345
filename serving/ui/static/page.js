// Sends the chosen image to the page's server and shows the prediction.
"use strict";

const byId = (id) => document.getElementById(id);
const maxUpload = Number(document.body.dataset.maxUpload);
let inFlight = null; // the newest request; older ones are aborted
let shownAddress = null;
let knowsModel = false;

const percent = (value, digits) => `${(100 * value).toFixed(digits)} %`;

function showError(title, detail) {
  byId("error-title").textContent = title;
  byId("error-detail").textContent = detail;
  byId("error").hidden = false;
  byId("status").textContent = "";
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { title: "The page's server does not answer", detail: "Check that segpipe serve still runs, then reload." };
  }
  const body = await response.json().catch(() => ({ title: `Error ${response.status}`, detail: "Reload the page." }));
  if (!response.ok) throw body;
  return body;
}

async function segment(address, body, imageAddress, name) {
  inFlight?.abort();
  const request = (inFlight = new AbortController());
  byId("error").hidden = true;
  byId("status").textContent = `Segmenting ${name}…`;
  if (byId("result").dataset.state === "done") byId("result").dataset.state = "busy";
  try {
    const answer = await ask(address, { method: "POST", body, signal: request.signal });
    show(answer, imageAddress);
    if (!knowsModel) showModel(); // it was not available yet when the page was opened
    const found = answer.classes.filter((each) => each.value > 0).length;
    byId("status").textContent = `${name}: ${found} ${answer.unit === "class" ? "classes" : "instances"} found.`;
  } catch (error) {
    if (request.signal.aborted) return;
    byId("result").dataset.state = "empty";
    showError(error.title ?? "Something went wrong", error.detail ?? String(error));
  }
}

function show(answer, imageAddress) {
  if (shownAddress?.startsWith("blob:")) URL.revokeObjectURL(shownAddress);
  shownAddress = imageAddress;
  for (const id of ["image", "overlay-image"]) byId(id).src = imageAddress;
  for (const id of ["mask", "overlay-mask"]) byId(id).src = answer.mask;
  byId("mask").style.background = answer.ignored_color ?? "none";
  byId("answered-by").textContent = answer.model;
  byId("version").textContent = answer.version;
  byId("seconds").textContent = `${Math.round(1000 * answer.seconds)} ms`;
  byId("confidence").textContent = percent(answer.confidence, 1);
  byId("size").textContent = `${answer.size} pixels`;
  byId("heading").textContent = answer.unit === "class" ? "Fraction of pixels" : "Score of each instance";
  const present = answer.classes.filter((each) => each.value > 0);
  byId("classes").replaceChildren(...present.map(classBar));
  const absent = answer.classes.filter((each) => each.value === 0).map((each) => each.name);
  byId("absent").textContent = absent.length ? `Not found: ${absent.join(", ")}` : "";
  byId("result").dataset.state = "done";
}

function classBar({ name, color, value }) {
  const item = document.createElement("li");
  const [swatch, label, number, track, bar] = ["i", "span", "span", "div", "div"].map((tag) => document.createElement(tag));
  swatch.className = "swatch";
  label.textContent = name;
  number.textContent = percent(value, value < 0.01 ? 2 : 1);
  number.className = "value";
  track.className = "track";
  bar.className = "bar";
  bar.style.width = `${100 * value}%`;
  for (const colored of [swatch, bar]) colored.style.background = color;
  track.append(bar);
  item.append(swatch, label, number, track);
  return item;
}

function chooseSample(name) {
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.setAttribute("aria-pressed", String(button.dataset.sample === name));
  }
  const encoded = encodeURIComponent(name);
  history.replaceState(null, "", `?sample=${encoded}`);
  return segment(`segment?sample=${encoded}`, null, `samples/${encoded}`, name);
}

function chooseFile(file) {
  if (!file) return;
  for (const button of document.querySelectorAll("[data-sample]")) button.setAttribute("aria-pressed", "false");
  history.replaceState(null, "", location.pathname);
  if (file.size > maxUpload) {
    inFlight?.abort();
    byId("result").dataset.state = "empty";
    showError("The image is too large", `${file.name} has ${(file.size / 1048576).toFixed(1)} MiB; the limit is ${maxUpload / 1048576} MiB. Choose a smaller file, or save it as JPEG.`);
    return;
  }
  segment("segment", file, URL.createObjectURL(file), file.name);
}

async function showModel() {
  try {
    const about = await ask("model");
    const [measure, value] = about.mask_ap == null ? ["mean IoU", about.mean_iou] : ["mask AP", about.mask_ap];
    const score = value == null ? "" : `, ${measure} ${value.toFixed(3)}`;
    knowsModel = true;
    byId("model").textContent = `${about.model} version ${about.version}, ${about.classes} classes, input ${about.input}${score}`;
  } catch (error) {
    byId("model").textContent = "no model";
    if (byId("result").dataset.state === "empty") showError(error.title, error.detail);
  }
}

byId("opacity").addEventListener("input", ({ target }) => {
  byId("overlay-mask").style.opacity = target.value / 100;
  byId("opacity-value").textContent = `${target.value} %`;
});
byId("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  chooseFile(file);
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => chooseSample(button.dataset.sample));
}
const drop = byId("drop");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
drop.addEventListener("drop", (event) => chooseFile(event.dataTransfer.files[0]));

const asked = new URLSearchParams(location.search).get("sample");
// In sequence, so that an error about the model does not replace one about the sample.
(asked === null ? Promise.resolve() : chooseSample(asked)).then(showModel);
