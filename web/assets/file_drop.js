// Upload of one file: chosen, dropped or pasted. It is previewed from the visitor's disk and sent as the body of a request.
// The value is JSON, {token, start, end, mask}, or "" without a file. File names are only ever set as text.
const find = (name) => element.querySelector(".sw-drop-" + name);
const zone = find("zone"), input = find("input"), preview = find("preview"), note = find("note");
const bar = find("bar"), problem = find("problem"), video = find("video"), image = find("image");
const trim = find("trim"), first = find("first"), last = find("last"), span = find("span");
const canvas = find("canvas"), tools = find("tools");
const WORDS = STRINGS.file_drop;
let request = null, objectUrl = "", state = null;

const formatTime = (value) => {
  const tenths = Math.round(10 * value), minutes = Math.floor(tenths / 600);
  return minutes + ":" + ((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0");
};
const updateValue = () => { props.value = state ? JSON.stringify(state) : ""; };
const showProblem = (text) => { problem.textContent = text; problem.hidden = !text; };

function clear() {
  if (request) { request.abort(); request = null; }
  if (objectUrl) { URL.revokeObjectURL(objectUrl); objectUrl = ""; }
  state = null;
  for (const part of [video, image]) { if (part) { part.removeAttribute("src"); part.hidden = true; } }
  if (video) video.load();
  if (trim) trim.hidden = true;
  if (tools) { tools.hidden = true; clearMask(); }
  preview.hidden = bar.hidden = true;
  zone.hidden = false;
  input.value = "";
  updateValue();
}

function choose(file) {
  if (!file) return;
  clear();
  showProblem("");
  if (file.size > props.max_mb * 1e6) { showProblem("This file is larger than " + props.max_mb + " MB."); return; }
  objectUrl = URL.createObjectURL(file);
  find("name").textContent = file.name;
  note.textContent = WORDS.uploading;
  const part = file.type.startsWith("image/") && image ? image : video;
  if (part) { part.src = objectUrl; part.hidden = false; }
  preview.hidden = bar.hidden = false;
  zone.hidden = true;
  bar.value = 0;
  send(file);
}

function send(file) {
  const current = request = new XMLHttpRequest();
  current.open("POST", new URL("uploads?name=" + encodeURIComponent(file.name), document.baseURI));
  current.upload.onprogress = (event) => {
    bar.value = event.loaded / event.total;
    if (event.loaded === event.total) note.textContent = WORDS.checking;
  };
  const failed = (text) => { if (request === current) { request = null; clear(); showProblem(text); trigger("clear"); } };
  current.onerror = () => failed("The upload failed. Is the server still running?");
  current.onload = () => {
    if (request !== current) return;
    request = null;
    let answer = {};
    try { answer = JSON.parse(current.responseText); } catch (error) { /* the error page of a proxy */ }
    if (!answer.token) { request = current; failed(sentence(answer.error || "the server rejected the file")); return; }
    if (answer.video !== props.is_video) {
      request = current;
      failed(props.is_video ? "This is a picture; use the Picture tab." : "This is a video; choose a picture.");
      return;
    }
    onUploaded(answer);
  };
  current.send(file);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

function onUploaded(answer) {
  bar.hidden = true;
  const size = answer.width + " × " + answer.height;
  note.textContent = answer.video
    ? size + ", " + formatTime(answer.seconds) + (answer.sound ? ", with sound" : ", without sound") : size;
  state = { token: answer.token };
  if (trim && answer.video) {
    for (const [handle, value] of [[first, 0], [last, answer.seconds]]) { handle.max = answer.seconds; handle.value = value; }
    trim.hidden = false;
    updateTrim();
  }
  if (tools) { tools.hidden = false; clearMask(); }
  updateValue();
  trigger("upload");
}

input.addEventListener("change", () => choose(input.files[0]));
find("remove").addEventListener("click", () => { clear(); showProblem(""); trigger("clear"); input.focus(); });
zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("sw-dragover"); });
zone.addEventListener("dragleave", () => zone.classList.remove("sw-dragover"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("sw-dragover");
  choose(event.dataTransfer.files[0]);
});
zone.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
for (const part of [video, image]) {
  if (part) part.addEventListener("error", () => { if (part.getAttribute("src")) part.hidden = true; });
}

// Trim: two handles on one track; the video seeks to the handle that moves.
function updateTrim(handle) {
  const length = Number(last.max), gap = Math.min(0.1, length);
  let from = Number(first.value), to = Number(last.value);
  if (to - from < gap) {
    if (handle === first) from = Math.max(0, to - gap); else to = Math.min(length, from + gap);
    first.value = from;
    last.value = to;
  }
  span.textContent = formatTime(from) + " – " + formatTime(to) + "  (" + (to - from).toFixed(1) + " s)";
  trim.style.setProperty("--from", 100 * from / length + "%");
  trim.style.setProperty("--to", 100 * to / length + "%");
  state.start = from;
  state.end = to < length ? to : null;
  if (handle && !video.hidden) { video.pause(); video.currentTime = Number(handle.value); }
  updateValue();
}
if (trim) for (const handle of [first, last]) handle.addEventListener("input", () => updateTrim(handle));

// A mask: white strokes over the picture mark where to dream.
const MASK_MAX_SIDE = 512;
let lastPoint = null;
function clearMask() {
  const scale = Math.min(1, MASK_MAX_SIDE / Math.max(image.naturalWidth || 1, image.naturalHeight || 1));
  canvas.width = Math.max(1, Math.round((image.naturalWidth || 1) * scale));
  canvas.height = Math.max(1, Math.round((image.naturalHeight || 1) * scale));
  if (state) { delete state.mask; updateValue(); }
}
function toCanvas(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}
function stroke(to) {
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = find("erase").checked ? "destination-out" : "source-over";
  context.strokeStyle = "white";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = Number(find("brush").value) / 100 * Math.max(canvas.width, canvas.height);
  context.beginPath();
  context.moveTo(...lastPoint);
  context.lineTo(...to);
  context.stroke();
  lastPoint = to;
}
function saveMask() {
  const mask = document.createElement("canvas");
  mask.width = canvas.width;
  mask.height = canvas.height;
  const context = mask.getContext("2d");
  context.fillRect(0, 0, mask.width, mask.height);
  context.drawImage(canvas, 0, 0);
  state.mask = mask.toDataURL("image/png");
  updateValue();
}
if (tools) {
  image.addEventListener("load", clearMask);
  canvas.addEventListener("pointerdown", (event) => {
    if (!state) return;
    canvas.setPointerCapture(event.pointerId);
    lastPoint = toCanvas(event);
    stroke(lastPoint);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => { if (lastPoint) stroke(toCanvas(event)); });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { if (lastPoint) { lastPoint = null; saveMask(); } });
  }
  find("clear-mask").addEventListener("click", clearMask);
}
