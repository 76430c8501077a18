"use strict";
const shown = JSON.parse(document.getElementById("pictures-data").textContent);
const gallery = document.querySelector(".gallery"), pager = document.getElementById("pager");
const box = document.getElementById("lightbox"), perPage = Number(gallery.dataset.perPage);
const start = Number(gallery.dataset.first), pages = Math.ceil((shown.length - start) / perPage);
let page = 0, current = 0;

// The content of embedded pictures is in the page only once.
for (const link of document.querySelectorAll("a.picture")) {
  const entry = shown[Number(link.dataset.number)];
  entry.source ||= link.querySelector("img").src;
}

function figureOf(number) {
  const entry = shown[number], figure = document.createElement("figure"), link = document.createElement("a");
  const image = document.createElement("img"), caption = document.createElement("figcaption");
  link.className = entry.width ? "picture" : "picture plain";
  if (entry.width) link.style.aspectRatio = `${entry.width} / ${entry.height}`;
  link.href = entry.href; link.dataset.number = number;
  image.src = entry.source; image.alt = entry.alt; image.loading = "lazy";
  caption.textContent = entry.caption;
  link.append(image); figure.append(link, caption);
  return figure;
}

function turn(number) {
  page = Math.min(Math.max(number, 0), pages - 1);
  const first = start + page * perPage, figures = [];
  for (let n = first; n < Math.min(first + perPage, shown.length); n++) figures.push(figureOf(n));
  gallery.replaceChildren(...figures);
  document.getElementById("page").textContent = `Page ${page + 1} of ${pages}`;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}

function enlarge(number) {
  current = (number + shown.length) % shown.length;
  const entry = shown[current], image = box.querySelector("img");
  image.src = entry.source; image.alt = entry.alt;
  box.querySelector("p").textContent = `${entry.caption} (${current + 1} of ${shown.length})`;
  if (!box.open) box.showModal();
}

document.addEventListener("click", event => {
  const link = event.target.closest("a.picture");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  enlarge(Number(link.dataset.number));
});
box.addEventListener("click", event => { if (event.target === box) box.close(); });
document.getElementById("before").onclick = () => enlarge(current - 1);
document.getElementById("after").onclick = () => enlarge(current + 1);
document.getElementById("close").onclick = () => box.close();
document.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
  if (box.open) enlarge(current + step); else if (pages > 1) turn(page + step);
});
if (pages > 1) {
  document.getElementById("previous").onclick = () => turn(page - 1);
  document.getElementById("next").onclick = () => turn(page + 1);
  pager.hidden = false;
  turn(0);
}
