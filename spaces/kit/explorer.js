// A picture with a marker that follows the mouse, a finger or the arrow keys; its value is {x, y} in [0, 1], y down.
const field = element.querySelector(".explorer"), marker = element.querySelector(".explorer-marker");
const image = element.querySelector("img");
let down = false;

function show() {
  const { x, y, url } = props.value;
  marker.style.left = `${100 * x}%`;
  marker.style.top = `${100 * y}%`;
  if (url && image.getAttribute("src") !== url) image.src = url;
  image.style.visibility = url ? "visible" : "hidden";
}

function move(x, y) {
  const clip = (v) => Math.min(1, Math.max(0, v));
  props.value = { ...props.value, x: clip(x), y: clip(y) };
  show();
  trigger("input");
}

const follow = (event) => {
  const box = field.getBoundingClientRect();
  move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
};
field.addEventListener("pointerdown", (event) => {
  down = true;
  field.setPointerCapture(event.pointerId);
  follow(event);
});
field.addEventListener("pointermove", (event) => down && follow(event));
for (const end of ["pointerup", "pointercancel"]) field.addEventListener(end, () => (down = false));

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
field.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const size = event.shiftKey ? 0.1 : 0.02;
  move(props.value.x + size * step[0], props.value.y + size * step[1]);
});
watch("value", show);
show();
