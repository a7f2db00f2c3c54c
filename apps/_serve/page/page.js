"use strict";

const AT_ONCE = 4; // requests; the server joins them into a batch
const TIMEOUT = 120000; // milliseconds

const { name, largest, fits } = document.body.dataset;
const drop = document.getElementById("drop");
const files = document.getElementById("files");
const answers = document.getElementById("answers");
const told = document.getElementById("status");
const waiting = [];
let running = 0, asked = 0, done = 0;

function made(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text; // never as markup: a file's name is its owner's choice
  if (className) element.className = className;
  return element;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("This file could not be read (or it is a folder)."));
    reader.readAsDataURL(file);
  });
}

async function ask(file) {
  if (file.size > Number(largest))
    throw new Error(`This file has ${megabytes(file.size)}; the server takes up to ${megabytes(Number(largest))}: make it smaller first.`);
  if (!file.size) throw new Error("This file is empty.");
  const body = JSON.stringify({ signature_name: "serving_default", instances: [{ b64: await base64(file) }] });
  let response;
  try {
    response = await fetch(`v1/models/${encodeURIComponent(name)}:predict`, {
      method: "POST", body, headers: { "Content-Type": "application/json" }, signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "The server took too long to answer." : "The server cannot be reached: is it still running?");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`The server gave no answer that can be read (status ${response.status}).`);
  }
  if (!response.ok) throw new Error(answer.error);
  const [prediction] = answer.predictions;
  if (!prediction.valid) throw new Error("This is no image that can be decoded: JPEG, PNG, GIF or BMP is needed.");
  return prediction;
}

function bars({ labels, scores }) {
  const list = made("dl");
  labels.forEach((label, index) => {
    const bar = made("dd", undefined, "bar");
    bar.append(made("i"));
    bar.ariaHidden = "true"; // the number beside it says the same
    bar.firstChild.style.width = `${Math.min(1, Math.max(0, scores[index])) * 100}%`;
    list.append(made("dt", label), made("dd", `${(scores[index] * 100).toFixed(1)} %`), bar);
  });
  return list;
}

function preview(file) {
  const image = made("img");
  image.alt = "";
  const url = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(url);
  image.onerror = () => { URL.revokeObjectURL(url); image.remove(); };
  image.src = url;
  return image;
}

async function show(file, item) {
  try {
    const prediction = await ask(file);
    item.append(preview(file), bars(prediction));
  } catch (error) {
    item.append(made("p", error.message, "bad"));
  }
  item.dataset.state = "done";
}

// A new version may have taken over since the page was loaded.
async function tellVersion() {
  try {
    const answer = await (await fetch(`v1/models/${encodeURIComponent(name)}`)).json();
    const served = answer.model_version_status.find(({ state }) => state === "AVAILABLE");
    if (served) document.getElementById("version").textContent = `version ${served.version}`;
  } catch { /* what was told last stays */ }
}

function next() {
  told.textContent = done < asked ? `${done} of ${asked} answered` : asked ? `${asked} answered` : "";
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    show(...waiting.shift()).finally(() => {
      running -= 1;
      done += 1;
      if (done === asked) tellVersion();
      next();
    });
  }
}

function take(list) {
  const items = list.map(() => made("li"));
  list.forEach((file, index) => {
    items[index].append(made("h2", file.name));
    waiting.push([file, items[index]]);
    asked += 1;
  });
  answers.prepend(...items); // the newest first, those of one drop in their order
  next();
}

if (fits === "true") {
  files.addEventListener("change", () => { take([...files.files]); files.value = ""; });
  // All of the page takes what is dropped: beside the box, the browser would leave the page for the picture.
  addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", event => { if (!event.relatedTarget) drop.classList.remove("over"); });
  addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); take([...event.dataTransfer.files]); });
  addEventListener("paste", event => take([...event.clipboardData.files]));
} else {
  drop.hidden = true;
  told.textContent = fits === "null"
    ? "No version of the model is loaded yet: load this page again in a moment."
    : "This model does not take the bytes of photographs (image_bytes), so there is nothing to drop here; its REST interface works.";
}
document.body.dataset.ready = "true";
