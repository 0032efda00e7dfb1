"use strict";
const openAround = (element) => {
  for (let at = element; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
const follow = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  openAround(target);
  target.scrollIntoView({ block: "center" });
  (target.tagName === "DETAILS" ? target.querySelector("summary") : target).focus({ preventScroll: true });
};
addEventListener("hashchange", follow);
for (const bar of document.querySelectorAll(".toolbar")) {
  const area = document.getElementById(bar.dataset.of);
  const modules = [...area.querySelectorAll("details")];
  bar.hidden = false;
  bar.addEventListener("click", (event) => {
    const wanted = event.target.dataset.open;
    if (!wanted) return;
    for (const module of modules) {
      module.open = wanted === "all" || (wanted === "off" && module.querySelector(".s5") !== null);
    }
  });
}
for (const box of document.querySelectorAll("input[type=search]")) {
  const rows = [...document.getElementById(box.dataset.of).tBodies[0].rows];
  box.parentElement.hidden = false;
  box.addEventListener("input", () => {
    const text = box.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(text);
  });
}
if (location.hash) follow();
