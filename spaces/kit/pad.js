// A square of paper to draw on with mouse, pen or finger; pictures can be chosen, dropped or pasted onto it.
// They are scaled here, in the browser, so that a photograph of any size is sent as one small PNG.
const SIDE = 280, PEN = 20, MAX_BYTES = 50e6;
const canvas = element.querySelector("canvas"), file = element.querySelector("input");
const note = element.querySelector(".pad-note");
const paper = canvas.getContext("2d");
let picture = null, strokes = [], stroke = null, sent = null;

function redraw() {
  paper.fillStyle = "white";
  paper.fillRect(0, 0, SIDE, SIDE);
  if (picture) paper.drawImage(picture, 0, 0);
  paper.strokeStyle = paper.fillStyle = "black";
  paper.lineWidth = PEN;
  paper.lineCap = paper.lineJoin = "round";
  for (const points of strokes) {
    paper.beginPath();
    paper.moveTo(...points[0]);
    for (const point of points) paper.lineTo(...point);  // a line to itself: a click leaves a dot
    paper.stroke();
  }
}

function send() {
  sent = picture || strokes.length ? canvas.toDataURL("image/png") : null;
  props.value = sent && { url: sent };
  trigger("input");
}

function say(message) {
  note.textContent = message;
}

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
};
canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  stroke = [place(event)];
  strokes.push(stroke);
  say("");
  redraw();
});
canvas.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  stroke.push(place(event));
  redraw();
});
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => {
    if (!stroke) return;
    stroke = null;
    send();
  });

async function load(source, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source);
  } catch {
    return say(`${name} is not a picture that can be read; a PNG, JPEG, WebP or GIF would be.`);
  }
  const scale = Math.min(SIDE / bitmap.width, SIDE / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  picture = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const ink = picture.getContext("2d");
  ink.fillStyle = "white";  // shows through where the picture is transparent, and beside it
  ink.fillRect(0, 0, SIDE, SIDE);
  ink.imageSmoothingQuality = "high";
  ink.drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  bitmap.close();
  strokes = [];
  say("");
  redraw();
  return true;
}

async function take(blob) {
  if (!blob) return;
  if (blob.size > MAX_BYTES) return say(`${blob.name} has ${Math.round(blob.size / 1e6)} MB; at most 50 can be read.`);
  if (await load(blob, blob.name)) send();
}
file.addEventListener("change", async () => {
  await take(file.files[0]);
  file.value = "";  // choosing the same file again counts as a choice
});
canvas.addEventListener("dragover", (event) => event.preventDefault());
canvas.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
canvas.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

element.querySelector(".pad-open").addEventListener("click", () => file.click());
element.querySelector(".pad-undo").addEventListener("click", () => {
  if (!strokes.pop()) return;
  redraw();
  send();
});
element.querySelector(".pad-clear").addEventListener("click", () => {
  picture = null;
  strokes = [];
  say("");
  redraw();
  send();
});

// a value from the server: an example that was clicked
async function show() {
  const url = props.value?.url ?? null;
  if (url === sent) return;
  sent = url;
  picture = null;
  strokes = [];
  redraw();
  if (url) await load(await (await fetch(url)).blob(), "The picture");
}
watch("value", show);
redraw();
show();
