"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  const themeButton = document.querySelector(".theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const label = () => { themeButton.textContent = isDark() ? "Light theme" : "Dark theme"; };
  // A page opened from a file may be denied storage; the choice then lasts as long as the page.
  try { root.dataset.theme = localStorage.getItem("theme") || ""; } catch { root.dataset.theme = ""; }
  themeButton.hidden = false;
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* see above */ }
    label();
  });
  prefersDark.addEventListener("change", label);
  label();

  const viewer = document.querySelector(".viewer");
  const pictures = [...document.querySelectorAll(".picture img")];
  let shown = 0;
  const show = (index) => {
    shown = (index + pictures.length) % pictures.length;
    const picture = pictures[shown];
    viewer.querySelector("img").src = picture.src;
    viewer.querySelector("img").alt = picture.alt;
    viewer.querySelector(".viewer-title").textContent = `${picture.dataset.kind}: ${picture.dataset.frame}`;
    if (!viewer.open) viewer.showModal();
  };
  pictures.forEach((picture, index) => {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.addEventListener("click", () => show(index));
    picture.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(index); }
    });
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); show(shown + step); }
  });
  viewer.addEventListener("click", (event) => {
    const step = event.target.dataset.step;
    if (step === "0" || event.target === viewer) viewer.close();
    else if (step) show(shown + Number(step));
  });
})();
