// Pictures on canvases, keypoints on pictures, files to and from the visitor's disk.

export const element = (id) => document.getElementById(id);

export const isPicture = (file) => file.type.startsWith("image/");

export const bitmap = (jpeg) => createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));

// In the picture's own pixels: the canvas takes its size.
export function show(canvas, picture) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

// Over another canvas; none hides it.
export function lay(canvas, picture) {
  canvas.hidden = !picture;
  if (picture) show(canvas, picture);
}

const toCanvas = (canvas, [x, y]) => [((x + 1) * canvas.width) / 2, ((y + 1) * canvas.height) / 2];

// A dot for each keypoint [x, y] in [-1, 1]; pale where the model is not sure. chosen: index of one with a ring.
export function drawKeypoints(canvas, keypoints, colours, confidence = null, chosen = -1) {
  const context = canvas.getContext("2d");
  const radius = Math.max(canvas.width / 60, (5 * canvas.width) / canvas.clientWidth); // 5 pixels of the screen at least
  keypoints.forEach((keypoint, index) => {
    const [x, y] = toCanvas(canvas, keypoint);
    context.globalAlpha = confidence ? 0.3 + 0.7 * Math.min(1, confidence[index]) : 1;
    context.fillStyle = `rgb(${colours[index].join(",")})`;
    context.strokeStyle = "#000";
    context.lineWidth = radius / 3;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    context.globalAlpha = 1;
    if (index === chosen) ring(context, x, y, 2 * radius);
  });
}

function ring(context, x, y, radius) {
  for (const [colour, width] of [["#000", radius / 3], ["#fff", radius / 7]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

// Small circles and no dots: where something was before.
export function drawTraces(canvas, keypoints, colours) {
  const context = canvas.getContext("2d");
  keypoints.forEach((keypoint, index) => {
    const [x, y] = toCanvas(canvas, keypoint);
    context.strokeStyle = `rgb(${colours[index].join(",")})`;
    context.lineWidth = canvas.width / 250;
    context.beginPath();
    context.arc(x, y, canvas.width / 90, 0, 2 * Math.PI);
    context.stroke();
  });
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const snapshot = (canvas, name) => canvas.toBlob((blob) => download(blob, name), "image/png");

export function complain(place, words) {
  place.textContent = words || "";
  place.hidden = !words;
}

export function offerDirections(select, domains) {
  const options = [["a2b", "a", "b"], ["b2a", "b", "a"]].map(([value, from, to]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = `${domains[from]} \u2192 ${domains[to]}`;
    return option;
  });
  const before = select.value;
  select.replaceChildren(...options);
  if (before) select.value = before;
}
