// One file of the visitor's: chosen, dropped or pasted; shown from the visitor's own disk; sent as the plain body of a
// request. The value is JSON: {token, start, end, mask}, or "" where there is none. Names are only ever set as text.
const find = (name) => element.querySelector(".sw-drop-" + name);
const zone = find("zone"), input = find("input"), shown = find("shown"), note = find("note");
const bar = find("bar"), problem = find("problem"), video = find("video"), image = find("image");
const trim = find("trim"), first = find("first"), last = find("last"), span = find("span");
const canvas = find("canvas"), tools = find("tools");
let request = null, local = "", state = null;

const seconds = (value) => {
  const whole = Math.floor(value / 60);
  return whole + ":" + (value - 60 * whole).toFixed(1).padStart(4, "0");
};
const keep = () => { props.value = state ? JSON.stringify(state) : ""; };
const say = (text) => { problem.textContent = text; problem.hidden = !text; };

function forget() {
  if (request) { request.abort(); request = null; }
  if (local) { URL.revokeObjectURL(local); local = ""; }
  state = null;
  for (const part of [video, image]) { if (part) { part.removeAttribute("src"); part.hidden = true; } }
  if (video) video.load();
  if (trim) trim.hidden = true;
  if (tools) { tools.hidden = true; wipe(); }
  shown.hidden = bar.hidden = true;
  zone.hidden = false;
  input.value = "";
  keep();
}

function take(file) {
  if (!file) return;
  forget();
  say("");
  if (file.size > props.most_mb * 1e6) { say("This file is larger than " + props.most_mb + " MB."); return; }
  local = URL.createObjectURL(file);
  find("name").textContent = file.name;
  note.textContent = "sending";
  const part = file.type.startsWith("image/") && image ? image : video;
  if (part) { part.src = local; part.hidden = false; }
  shown.hidden = bar.hidden = false;
  zone.hidden = true;
  bar.value = 0;
  send(file);
}

function send(file) {
  const mine = request = new XMLHttpRequest();
  mine.open("POST", new URL("uploads?name=" + encodeURIComponent(file.name), document.baseURI));
  mine.upload.onprogress = (event) => {
    bar.value = event.loaded / event.total;
    if (event.loaded === event.total) note.textContent = "looking at it";
  };
  const failed = (text) => { if (request === mine) { request = null; forget(); say(text); trigger("clear"); } };
  mine.onerror = () => failed("The file could not be sent; is the server still there?");
  mine.onload = () => {
    if (request !== mine) return;
    request = null;
    let answer = {};
    try { answer = JSON.parse(mine.responseText); } catch (error) { /* a proxy's page, not ours */ }
    if (!answer.token) { request = mine; failed(sentence(answer.error || "the server did not take it")); return; }
    if (answer.video !== props.moving) {
      request = mine;
      failed(props.moving ? "That is a picture; the Picture tab takes it." : "That is a video; a picture is needed.");
      return;
    }
    arrived(answer);
  };
  mine.send(file);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

function arrived(answer) {
  bar.hidden = true;
  const size = answer.width + " × " + answer.height;
  note.textContent = answer.video
    ? size + ", " + seconds(answer.seconds) + (answer.sound ? ", with sound" : ", no sound") : size;
  state = { token: answer.token };
  if (trim && answer.video) {
    for (const [handle, value] of [[first, 0], [last, answer.seconds]]) { handle.max = answer.seconds; handle.value = value; }
    trim.hidden = false;
    trimmed();
  }
  if (tools) { tools.hidden = false; wipe(); }
  keep();
  trigger("upload");
}

input.addEventListener("change", () => take(input.files[0]));
find("remove").addEventListener("click", () => { forget(); say(""); trigger("clear"); input.focus(); });
zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("sw-over"); });
zone.addEventListener("dragleave", () => zone.classList.remove("sw-over"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("sw-over");
  take(event.dataTransfer.files[0]);
});
zone.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const part of [video, image]) {
  if (part) part.addEventListener("error", () => { if (part.getAttribute("src")) part.hidden = true; });
}

// Trim: two handles on one line; the picture follows the handle.
function trimmed(moved) {
  const length = Number(last.max), gap = Math.min(0.1, length);
  let from = Number(first.value), to = Number(last.value);
  if (to - from < gap) {
    if (moved === first) from = Math.max(0, to - gap); else to = Math.min(length, from + gap);
    first.value = from;
    last.value = to;
  }
  span.textContent = seconds(from) + " – " + seconds(to) + "  (" + (to - from).toFixed(1) + " s)";
  trim.style.setProperty("--from", 100 * from / length + "%");
  trim.style.setProperty("--to", 100 * to / length + "%");
  state.start = from;
  state.end = to < length ? to : null;
  if (moved && !video.hidden) { video.pause(); video.currentTime = Number(moved.value); }
  keep();
}
if (trim) for (const handle of [first, last]) handle.addEventListener("input", () => trimmed(handle));

// A mask: white strokes over the picture say where to dream.
const MASK_SIDE = 512;
let drawing = null;
function wipe() {
  const scale = Math.min(1, MASK_SIDE / Math.max(image.naturalWidth || 1, image.naturalHeight || 1));
  canvas.width = Math.max(1, Math.round((image.naturalWidth || 1) * scale));
  canvas.height = Math.max(1, Math.round((image.naturalHeight || 1) * scale));
  if (state) { delete state.mask; keep(); }
}
function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}
function stroke(to) {
  const pen = canvas.getContext("2d");
  pen.globalCompositeOperation = find("erase").checked ? "destination-out" : "source-over";
  pen.strokeStyle = "white";
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = Number(find("brush").value) / 100 * Math.max(canvas.width, canvas.height);
  pen.beginPath();
  pen.moveTo(...drawing);
  pen.lineTo(...to);
  pen.stroke();
  drawing = to;
}
function masked() {
  const whole = document.createElement("canvas");
  whole.width = canvas.width;
  whole.height = canvas.height;
  const pen = whole.getContext("2d");
  pen.fillRect(0, 0, whole.width, whole.height);
  pen.drawImage(canvas, 0, 0);
  state.mask = whole.toDataURL("image/png");
  keep();
}
if (tools) {
  image.addEventListener("load", wipe);
  canvas.addEventListener("pointerdown", (event) => {
    if (!state) return;
    canvas.setPointerCapture(event.pointerId);
    drawing = place(event);
    stroke(drawing);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => { if (drawing) stroke(place(event)); });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { if (drawing) { drawing = null; masked(); } });
  }
  find("wipe").addEventListener("click", wipe);
}
