"use strict";
const AT_ONCE = 4; // requests; the server joins them into a batch
const { name, largest, numbers } = document.body.dataset;
const model = `v1/models/${encodeURIComponent(name)}`;
const [drop, files, answers, told, version] = ["drop", "files", "answers", "status", "version"].map(id => document.getElementById(id));
const waiting = [];
let running = 0, asked = 0, done = 0;

// Never as markup: a file's name is its owner's choice.
const made = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("This file could not be read (or it is a folder)."));
    reader.readAsDataURL(file);
  });
}

async function ask(file) {
  const [size, most] = [file.size, largest].map(bytes => `${(bytes / 1e6).toFixed(1)} MB`);
  if (file.size > largest) throw new Error(`This file has ${size}; the server takes up to ${most}: make it smaller first.`);
  if (!file.size) throw new Error("This file is empty.");
  const body = JSON.stringify({ signature_name: "serving_default", instances: [{ b64: await base64(file) }] });
  const response = await fetch(`${model}:predict`, { method: "POST", body }).catch(() => null);
  if (!response) throw new Error("The server cannot be reached: is it still running?");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  if (answer.predictions[0].valid) return answer.predictions[0];
  throw new Error("This is no image that can be decoded: JPEG, PNG, GIF or BMP is needed.");
}

function bars({ labels, scores, values }) {
  const list = made("dl");
  values?.forEach((value, index) => list.append(made("dt", JSON.parse(numbers)[index] ?? ""), made("dd", value.toPrecision(4))));
  labels?.forEach((label, index) => {
    const percent = (scores[index] * 100).toFixed(1), bar = made("dd", "", "bar");
    bar.append(made("i"));
    bar.ariaHidden = "true"; // the number beside it says the same
    bar.firstChild.style.width = `${percent}%`;
    list.append(made("dt", label), made("dd", `${percent} %`), bar);
  });
  return list;
}

async function show(file, item) {
  try {
    const prediction = await ask(file);
    const image = Object.assign(made("img"), { alt: "", src: URL.createObjectURL(file) });
    image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
    item.append(image, bars(prediction));
  } catch (error) {
    item.append(made("p", error.message, "bad"));
  }
  item.dataset.state = "done";
}

async function tellVersion() {
  const answer = await fetch(model).then(response => response.json()).catch(() => ({}));
  const served = answer.model_version_status?.find(({ state }) => state === "AVAILABLE");
  version.textContent = served ? `version ${served.version}` : "no version is loaded";
}

function next() {
  told.textContent = done < asked ? `${done} of ${asked} answered` : `${asked} answered`;
  for (; running < AT_ONCE && waiting.length; running += 1) show(...waiting.shift()).then(() => {
    running -= 1;
    if (++done === asked) tellVersion(); // a new one may have taken over
    next();
  });
}

function take(list) {
  if (document.body.dataset.takes === "tensors") return;
  const taken = [...list].map(file => [file, made("li")]);
  taken.forEach(([file, item]) => { item.append(made("h2", file.name)); waiting.push([file, item]); });
  asked += taken.length;
  answers.prepend(...taken.map(([, item]) => item)); // the newest first, those of one drop in their order
  next();
}

files.addEventListener("change", () => { take(files.files); files.value = ""; });
// All of the page takes what is dropped: beside the box, the browser would leave the page for the picture.
addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) drop.classList.remove("over"); });
addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files); });
tellVersion().finally(() => { document.body.dataset.ready = "true"; });
